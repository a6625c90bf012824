"""Commands of the edge: make a bundle, collect what boxes logged. Each a thin call, as in `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from platform_assets.cli_options import Model, console
from platform_assets.errors import ReleaseError
from resources.settings import read_settings


def bundle(
    model: Model,
    target: Annotated[str, typer.Option(help="What it is for: edge.")] = "edge",
    out: Annotated[Path | None, typer.Option(help="Archive to write; falaj-edge-MODEL-VERSION.tar.gz here when left out.")] = None,
    version: Annotated[str | None, typer.Option(help="Version; the live one when left out.")] = None,
    jurisdiction: Annotated[
        str | None, typer.Option(help="Whose law holds where the box will stand, ISO 3166-1; this machine's when left out.")
    ] = None,
) -> None:
    """Write one archive that installs offline: server, packages, model, policy, systemd units."""
    from platform_assets.main_job import edge

    if target != "edge":
        raise ReleaseError(f"--target {target!r}: there are bundles for the target edge alone.")
    path, digest, needed = edge.write_bundle(read_settings(), model, out=out, version=version, jurisdiction=jurisdiction)
    console.print(f"{path}: {model} {digest[:12]}, {path.stat().st_size / 1e6:.0f} MB. `sh install.sh` in it installs it.", soft_wrap=True)
    if needed:
        console.print(f"There are no online features at the edge; callers send {', '.join(needed)} themselves.", soft_wrap=True)


def collect(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="Where `falaj-edge handover` brings to, such as a mounted share or stick.")],
) -> None:
    """Take the prediction logs of edge boxes in, and leave receipts by which they remove theirs."""
    from platform_assets.main_job import edge

    segments, rows = edge.collect(read_settings(), model, folder)
    console.print(f"{segments} segments with {rows:,} rows were taken; {model}/production_log reads them next.", highlight=False)
