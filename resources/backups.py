"""A home in two archives, taken while it works: what is needed to go on elsewhere, and apart from it the keys; and back from them.

A backup is a state that SIGKILL could have left, which everything here goes on from: what was written last is copied first (Dagster's
databases, then audit log and ledger, then what they speak of), so whatever a copied record names is in the archive. Each database is copied
in one of its own transactions; all else is never changed once it has its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from platform_assets.errors import BackupError
from resources.artifacts import sync, sync_tree
from resources.audit import PostgresAuditLog, SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.events import INBOX
from resources.events.sqlite_queue import put_back
from resources.home import write_atomically
from resources.settings import Home
from resources.team_backups import ROOM as TEAM
from resources.team_backups import TeamServers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "MANIFEST.json"
_FORMAT = 1
_SQLITE = b"SQLite format 3\x00"
# Of this machine and this moment, or made again from what is kept. A training under way begins again. Tenants' homes, their keys among
# them, are backed up each by itself.
_LEFT_OUT = (
    "run",
    "logs",
    "scratch",
    "cache",
    "search",
    "metrics",
    "trainings",
    "keys",
    "leases.sqlite",
    "tenants",
    "artefacts/incoming",
    "releases/incoming",
)
_PASSING = ("-wal", "-shm", "-journal", ".lock")
_CHUNK = 1 << 20


def back_up(home: Home, archive: Path, keys: Path, *, servers: TeamServers | None = None) -> dict[str, Any]:
    """Write both archives, each whole or not at all; return the manifest of the first: begun (UTC), id, files (name to SHA-256).

    `servers` hold what a team's home does not.
    """
    if not (home.state if servers is None else home.keys).exists():
        what = "no audit log is" if servers is None else "there are no keys"
        raise BackupError(f"{home.root} has nothing to back up: {what} in it; FALAJ_HOME names the home that is meant")
    for file in (archive, keys):
        if file.exists():
            raise BackupError(f"{file} is there already; name a file that is not, so that no earlier backup is lost")
        if file.absolute().is_relative_to(home.root):
            raise BackupError(f"{file} lies in the home that is to be backed up; name a place outside of {home.root}")
    manifest = {
        "format": _FORMAT,
        "id": secrets.token_hex(8),
        "home": str(home.root),
        "team": servers is not None,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with tempfile.TemporaryDirectory(prefix="falaj-backup-", dir=archive.absolute().parent) as beside:
        whole = {**manifest, "files": _pack(Path(beside) / "home", _copies(home, Path(beside), servers), manifest)}
        _pack(Path(beside) / "keys", ((f"keys/{file.name}", file) for file in sorted(home.keys.iterdir()) if file.is_file()), manifest)
        _put(Path(beside) / "keys", keys)
        _put(Path(beside) / "home", archive)
    return whole


def restore(home: Home, archive: Path, keys: Path, *, servers: TeamServers | None = None) -> dict[str, Any]:
    """Lay a home out from both archives, verified before it has its name; return the manifest. BackupError where anything does not fit.

    `servers`, which must be empty, are filled before; killed in between, the same backup can be restored into them again.
    """
    if home.root.exists() and any(home.root.iterdir()):
        raise BackupError(f"{home.root} is not empty; a backup is restored into an empty place, set FALAJ_HOME to one")
    home.root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{home.root.name}.restoring-", dir=home.root.parent) as beside:
        place = Path(beside) / "home"
        place.mkdir(mode=0o755)
        manifest = _unpack(archive, place)
        if _unpack(keys, place)["id"] != manifest["id"]:
            raise BackupError(f"{keys} holds the keys of another backup than {archive}; name the two files that were written together")
        if bool(manifest.get("team")) is not (servers is not None):
            whose = (
                "a team's servers, restore it with FALAJ_ENV=team" if servers is None else "a laptop's home, restore it without FALAJ_ENV"
            )
            raise BackupError(f"{archive} is a backup of {whose}")
        (place / "keys").chmod(0o700)
        made = Home(place)
        if servers is not None:
            servers.check_empty(manifest["id"])
            servers.lay(place, backup=manifest["id"])
            shutil.rmtree(place / TEAM)
            PostgresAuditLog(servers.audit, signer=HeadSigner(made.keys)).verify()
        else:
            log = SqliteAuditLog(made.state, signer=HeadSigner(made.keys))
            log.verify()
            log.close()  # or SQLite takes its side files away while the tree is brought to the disk
        _move_paths(place / "serving", before=manifest["home"], after=str(home.root))
        sync_tree(place)
        if home.root.exists():
            home.root.rmdir()
        if servers is not None:
            servers.finish()
        place.rename(home.root)
        sync(home.root.parent)
    return manifest


def _copies(home: Home, beside: Path, servers: TeamServers | None) -> Iterator[tuple[str, Path]]:
    """Yield names and files of what is kept, in the order that makes it consistent; a database as a copy of one moment."""
    left_out: tuple[str, ...] = _LEFT_OUT
    if servers is not None:
        yield from servers.copy_records(beside)
        left_out += servers.cached
    # Dagster's database comes after the inbox (an event in neither would be lost; in both it is known by its run) and before the outbox.
    inbox = _copy_database(home.events, beside / "inbox.sqlite") if home.events.exists() else None
    for name in sorted((name for name in _names(home.root, left_out) if _is_database(home.root / name)), key=_turn):
        copy = _copy_database(home.root / name, beside / "copy.sqlite")
        if inbox is not None and home.root / name == home.events:
            put_back(copy, earlier=inbox, queue=INBOX)
        yield name, copy
    files = sorted((name for name in _names(home.root, left_out) if not _is_database(home.root / name)), key=_turn)
    yield from ((name, home.root / name) for name in files)
    if servers is not None:
        yield from servers.copy_objects(beside)


def _copy_database(file: Path, copy: Path) -> Path:
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(file, timeout=30)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _names(root: Path, left_out: tuple[str, ...]) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        folders[:] = [name for name in folders if (place / name).as_posix() not in left_out]
        yield from (
            (place / name).as_posix()
            for name in files
            if (place / name).as_posix() not in left_out and not name.endswith(_PASSING) and not name.startswith(".")
        )


def _turn(name: str) -> tuple[int, str]:
    """What is written last comes first: a step writes tables and artefacts, then the audit log, and Dagster writes that it is done."""
    parts = Path(name).parts
    if parts[0] == "instance":
        return (0, name)
    if name == "state.sqlite":
        return (1, name)
    if "_delta_log" in parts or parts[:2] == ("artefacts", "memo") or parts[0] == "serving":
        return (2, name)
    return (3, name)


def _is_database(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _pack(target: Path, files: Iterator[tuple[str, Path]], manifest: Mapping[str, Any]) -> dict[str, str]:
    digests: dict[str, str] = {}
    with target.open("xb") as raw, tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar:
        target.chmod(0o600)
        for name, file in files:
            try:
                stream = file.open("rb")
            except FileNotFoundError:  # somebody's passing file, or a version that retention removed meanwhile
                continue
            with stream:
                info = tar.gettarinfo(arcname=name, fileobj=stream)
                counted = _Hashing(stream)
                tar.addfile(info, counted)  # as many bytes as there were: what grows is only ever added to
                digests[name] = counted.sha256.hexdigest()
        content = json.dumps({**manifest, "files": digests}, sort_keys=True).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))  # last: an archive that was cut off has none
    return digests


class _Hashing:
    """A file that hashes what is read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.sha256 = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read and hash."""
        content: bytes = self._stream.read(size)
        self.sha256.update(content)
        return content


def _put(file: Path, target: Path) -> None:
    sync(file)
    os.link(file, target)  # unlike rename, link never replaces what another has put there meanwhile
    sync(target.absolute().parent)


def _unpack(archive: Path, place: Path) -> dict[str, Any]:
    digests: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(archive, mode="r|gz") as tar:
            for member in tar:
                if not member.isfile():
                    raise BackupError(f"{archive} holds {member.name!r}, which is no plain file; it was not written by `falaj backup`")
                source = tar.extractfile(member)
                assert source is not None
                if member.name == MANIFEST:
                    manifest = json.loads(source.read())
                    continue
                if (name := PurePosixPath(member.name)).is_absolute() or ".." in name.parts:  # Debian 12's tarfile has no filter for it
                    raise BackupError(f"{archive} holds {member.name!r}, which lies outside of it; it was not written by `falaj backup`")
                digests[member.name] = _lay(source, member.name, place, mode=member.mode & 0o777)
    except FileNotFoundError:
        raise BackupError(f"there is no file {archive}; name what `falaj backup` wrote") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise BackupError(f"{archive} cannot be read to its end: {error}; take another copy of it") from error
    if manifest is None or manifest.get("format") != _FORMAT:
        raise BackupError(f"{archive} bears no manifest of format {_FORMAT} at its end: it was cut off, or is no backup of this platform")
    if digests != manifest["files"]:
        wrong = sorted(name for name in digests | manifest["files"] if digests.get(name) != manifest["files"].get(name))
        raise BackupError(f"{archive} was altered: {wrong[0]} and {len(wrong) - 1} more are not what its manifest says; take another copy")
    return manifest


def _lay(source: Any, name: str, place: Path, *, mode: int) -> str:
    target, digest = place / name, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:
        while content := source.read(_CHUNK):
            digest.update(content)
            stream.write(content)
    target.chmod(mode)
    return digest.hexdigest()


def _move_paths(serving: Path, *, before: str, after: str) -> None:
    """Let the inference server find its releases in the new place."""
    for file in serving.glob("*.json"):
        moved = file.read_text(encoding="utf-8").replace(json.dumps(before)[1:-1] + "/", json.dumps(after)[1:-1] + "/")
        write_atomically(file, moved.encode())
