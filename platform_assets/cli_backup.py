"""Commands that take a home elsewhere: backup and restore. Each a thin call, as in `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from platform_assets.cli_options import Json, console, write
from resources.settings import read_settings

Keys = Annotated[Path, typer.Option(help="File for the keys, to be kept apart from the other: together they are everything.")]


def backup(
    file: Annotated[Path, typer.Argument(help="File that is written, whole or not at all; it must not be there yet.")],
    keys: Keys,
    json_file: Json = None,
) -> None:
    """Write everything that is needed to go on elsewhere into one file, the keys into another; runs may go on meanwhile."""
    from platform_assets.main_job import backup_verbs

    done = backup_verbs.back_up_home(read_settings(), file, keys)
    console.print(
        f"{file}: {len(done['files'])} files; keys in {keys}. What was written after {done['begun']} may not be in it.", soft_wrap=True
    )
    write(json_file, done)


def restore(
    file: Annotated[Path, typer.Argument(help="File that `falaj backup` wrote.")],
    keys: Annotated[Path, typer.Option(help="File with the keys that it wrote beside.")],
) -> None:
    """Lay a home out from a backup, in FALAJ_HOME, which must be empty; it is verified before it is there."""
    from platform_assets.main_job import backup_verbs

    settings = read_settings()
    done = backup_verbs.restore_home(settings, file, keys)
    console.print(f"{settings.home.root} is as it was at {done['begun']}. `falaj run` goes on from there.", soft_wrap=True)
