"""Area `governance`: what trust costs: audit entries a second, opening a release of 50 MB, rotating its key, the gateway, certificates."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from platform_assets.main_job.bench.core import describe_row, judge_row, measured
from platform_assets.main_job.bench.gateway import measure_gateway
from platform_assets.main_job.bench.services import measure_services
from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.sealing.release import Opener
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.keys import LaptopKeys, ModelSigner
from resources.releases import SealedReleases

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.main_job.bench.core import Row

_MEGABYTES = 50


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Write audit entries and open a release, on this machine's disk. Quick: fewer of both."""
    console.print("governance, audit entries and a sealed release ...")
    with tempfile.TemporaryDirectory() as name:
        audit = _measure_audit(Path(name), entries=500 if quick else 5000)
        release = _measure_release(Path(name), opens=5 if quick else 25)
    console.print("governance, the gateway before Dagster's web server ...")
    gateway = measure_gateway(quick=quick)
    console.print("governance, certificates between services ...")
    return [*audit, *release, *gateway, *measure_services(quick=quick)]


def _measure_audit(folder: Path, *, entries: int) -> list[Row]:
    log = SqliteAuditLog(folder / "state.sqlite", signer=HeadSigner(folder / "keys"))
    log.append("bench", subject="bench", actor="bench", detail={})  # makes the file and the key
    with measured() as writing:
        for number in range(entries):
            log.append("bench", subject="bench", actor="bench", detail={"number": number})
    with measured() as verifying:
        log.verify()
    return [
        judge_row("audit entries, signed and on disk", value=entries / writing.wall_seconds, unit="/s", must=1000, better="higher"),
        describe_row("CPU an entry", value=1e6 * writing.cpu_seconds / entries, unit="µs"),
        describe_row("verifying the chain", value=1e6 * verifying.cpu_seconds / entries, unit="µs an entry"),
    ]


def _measure_release(folder: Path, *, opens: int) -> list[Row]:
    made = folder / "release"
    made.mkdir()
    (made / "model.onnx").write_bytes(os.urandom(_MEGABYTES << 20))
    (made / MANIFEST_FILE).write_text(json.dumps({"model": "bench", "candidate": "bench", "files": list_files(made)}))
    store = SealedReleases(folder / "releases", keys=LaptopKeys(folder / "keys"), signer=ModelSigner(folder / "keys"))
    digest = store.put(made)
    opener, found = Opener.of(folder / "keys"), []
    for _ in range(opens):
        with measured() as opening:
            opener.open(store.path(digest), digest=digest)
        found.append(1000 * opening.wall_seconds)
    with measured() as rotating:
        store.rotate()
    what = f"opening a release of {_MEGABYTES} MB: signature, decryption, hashes, digest"
    return [
        judge_row(what, value=median(found), unit="ms", must=200, better="lower"),
        describe_row("rotating the key of a release", value=1000 * rotating.cpu_seconds, unit="ms CPU"),
    ]
