"""The two ends of an edge box at home: `falaj bundle` makes the archive it is installed from, `falaj collect` takes its log in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import sys
import tarfile
import tempfile
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError, ServingError
from platform_assets.keys import model_key
from platform_assets.main_job.operations import find_release, open_parts
from platform_assets.main_job.releases import released_digests
from platform_assets.specs.places import Place, check_jurisdiction
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.serving.access import PUBLIC_KEY_FILE
from platform_assets.stages.serving.edge import KEYS, POLICY_FILE, RELEASES, EdgePolicy
from platform_assets.stages.serving.frames import read_rows
from platform_assets.stages.serving.handover import leave_receipt, waiting, write_whole
from resources.edge_site import INFRA, site_files
from resources.keys import LaptopKeys, ModelSigner
from resources.places import VARIABLE
from resources.releases import SealedReleases
from resources.tokens import ensure_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resources.settings import Settings

_LEVEL = 1  # of gzip: 6 makes 57 MB of 64, in three times the CPU time
_PROGRAMS = ("falaj-edge", "install.sh")


def write_bundle(
    settings: Settings, model: str, *, out: Path | None, version: str | None, jurisdiction: str | None = None
) -> tuple[Path, str, list[str]]:
    """Write the archive of a release; return its path, the release's digest and the features that callers at the edge must send.

    It appears whole under its name or not at all. The release is sealed anew under a key of this bundle's own, so that no key of the home
    leaves it: the archive can be read by who has it, and is of mode 0600. `jurisdiction`: whose law holds where the box stands, this
    machine's when left out; where the model's data may not be there, nothing is written, and that is audited.
    """
    parts, digest = find_release(settings, model, version)
    here = next((place.jurisdiction for place in settings.places if place.part == "inference server"), None)
    if law := jurisdiction or here:
        try:
            check_jurisdiction(law)
        except ValueError as error:
            raise ReleaseError(f"--jurisdiction: {error}") from None
        box = Place("edge box", "where the bundle is brought to", law, "--jurisdiction" if jurisdiction else VARIABLE)
        parts.border.hold(model_key(model, "deployed"), actor="falaj bundle", places=[box])
    release = parts.releases.open(digest)
    name = f"falaj-edge-{model}-{release.version}"
    path = out or Path(f"{name}.tar.gz")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            plain, sealed = Path(scratch) / "plain", Path(scratch) / "sealed"
            for file, content in release.files.items():
                (plain / file).parent.mkdir(parents=True, exist_ok=True)
                (plain / file).write_bytes(content)
            _seal(settings, plain, into=sealed)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=_LEVEL) as archive:
                    _fill(archive, name, EdgePolicy(model, digest), sealed)
                stream.flush()
                os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be written ({error.strerror}); free some space or name another file with --out") from error
    finally:
        beside.unlink(missing_ok=True)
    detail = {"digest": digest, "file": str(path.absolute()), "target": "edge", "jurisdiction": law}
    parts.audit.append("release_exported", subject=f"model/{model}", actor="falaj bundle", detail=detail)
    schema = read_record(FeatureSchema, release["schema.json"])
    return path, digest, [feature.name for feature in schema.features if schema.online and feature.entity != schema.key]


def _seal(settings: Settings, plain: Path, *, into: Path) -> None:
    """Seal a release as it lies in a bundle: keys of its own to open it, the home's public keys to trust it and its callers."""
    keys = into / KEYS
    keys.mkdir(parents=True)
    signer = ModelSigner(settings.home.keys)
    signer.ensure_pair()
    ensure_signing_key(settings.home.keys)
    for public in (signer.public_key, settings.home.keys / PUBLIC_KEY_FILE):
        (keys / public.name).write_bytes(public.read_bytes())
    SealedReleases(into / RELEASES, keys=LaptopKeys(keys), signer=signer).put(plain)


def _fill(archive: tarfile.TarFile, name: str, policy: EdgePolicy, sealed: Path) -> None:
    sums = []
    for inside, content, mode in _contents(policy, sealed):
        sums.append(f"{hashlib.sha256(content).hexdigest()}  {inside}\n")
        _add(archive, f"{name}/{inside}", content, mode)
    _add(archive, f"{name}/SHA256SUMS", "".join(sums).encode(), 0o644)


def _contents(policy: EdgePolicy, sealed: Path) -> Iterator[tuple[str, bytes, int]]:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for file in sorted(INFRA.iterdir()):
        content = file.read_bytes()
        for mark, value in (("@PYTHON@", python), ("@VERSION@", python.removeprefix("python")), ("@MACHINE@", platform.machine())):
            content = content.replace(mark.encode(), value.encode())
        folder = {"falaj-edge": "bin/", "install.sh": ""}.get(file.name, "systemd/")
        yield folder + file.name, content, 0o755 if file.name in _PROGRAMS else 0o644
    yield POLICY_FILE, json.dumps(asdict(policy), indent=1).encode(), 0o644
    for file in sorted(path for path in sealed.rglob("*") if path.is_file()):
        yield file.relative_to(sealed).as_posix(), file.read_bytes(), 0o600
    for inside, file in site_files():
        yield f"site/{inside}", file.read_bytes(), 0o644


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, BytesIO(content))


def collect(settings: Settings, model: str, folder: Path) -> tuple[int, int]:
    """Take what edge boxes brought into the home's own log, whence `production_log` reads it; return segments and rows.

    A segment is looked through first: one that is damaged, or of a release that this home never made, is refused by name and stays where
    it is, after all others were taken.
    """
    parts = open_parts(settings, model)
    if not folder.is_dir():
        raise ServingError(f"{folder} is no folder; name the one that `falaj-edge handover` brings to")
    known, log = set(released_digests(parts.audit, model)), settings.home.serving / "log" / model
    segments = rows = 0
    refused: list[str] = []
    for brought in waiting(folder, model=model):
        try:
            found = list(read_rows(brought.file))
        except (ServingError, KeyError, ValueError, TypeError) as error:
            refused.append(f"{brought.file} is not a segment ({error})")
            continue
        if foreign := {row["digest"][:12] for row in found if row["digest"] not in known or row["model"] != model}:
            refused.append(f"{brought.file} is of {min(foreign)}, no release of {model} that was made here")
            continue
        content = brought.file.read_bytes()
        log.mkdir(parents=True, exist_ok=True)
        write_whole(log / brought.name, content)
        leave_receipt(brought, content)
        segments, rows = segments + 1, rows + len(found)
    if segments:
        parts.audit.append(
            "edge_log_taken",
            subject=f"model/{model}",
            actor="falaj collect",
            detail={"segments": segments, "rows": rows, "folder": str(folder)},
        )
    if refused:
        raise ServingError(f"{segments} segments were taken, {len(refused)} were not: {'; '.join(refused)}")
    return segments, rows
