"""FALAJ_HOME itself: making it, holding it, secrets and small files in it. What runs in it is in processes.py."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from platform_assets.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from resources.settings import Home

INSTANCE_FILE = "infra/dagster/laptop.yaml"
_SECRET_BYTES = 32


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write beside and rename, so that a reader sees the old bytes or the new ones, also after SIGKILL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def prepare_home(home: Home, instance: bytes) -> None:
    """Create folders and Dagster's instance file (YAML); what exists stays, the instance file is always this one."""
    for folder in (home.instance, home.tables, home.artefacts, home.feast, home.mlflow, home.serving, home.run, home.logs, home.reports):
        folder.mkdir(parents=True, exist_ok=True)
    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = home.instance / "dagster.yaml"
    if not target.exists() or target.read_bytes() != instance:
        write_atomically(target, instance)


def clear_scratch(home: Home) -> None:
    """Remove what killed steps left half made; to be called only while nobody works in this home."""
    shutil.rmtree(home.root / "scratch", ignore_errors=True)


def ensure_secret(path: Path, *, content: bytes | None = None) -> bytes:
    """Return the secret in this file (mode 0600), made at first use of 32 random bytes or this content; two makers agree on one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES) if content is None else content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # unlike rename, link keeps what another maker has put there meanwhile
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_bytes()


def read_sources(home: Home) -> dict[str, str]:
    """Return the datasets provided at run time to this home, name to absolute path or URL."""
    return json.loads(home.sources.read_text()) if home.sources.exists() else {}


def bind_sources(home: Home, provided: Mapping[str, str]) -> None:
    """Tie this home to its provided sources; other ones than before are refused, since its history is of those."""
    before = read_sources(home) if (home.sources.exists() or home.state.exists()) else None
    if before is not None and before != dict(provided):
        held = ", ".join(f"{name}={path}" for name, path in before.items()) or "the declared sources"
        raise StateError(f"{home.root} holds runs on {held}; set FALAJ_HOME to another folder for other data.")
    write_atomically(home.sources, json.dumps(dict(provided), sort_keys=True).encode())


@contextmanager
def locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a folder, alone or shared (LOCK_SH), waiting for its holders; the kernel lets go when the holder dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


@contextmanager
def hold(home: Home, command: str) -> Iterator[None]:
    """Hold this home alone; if another process does, raise StateError that names it. The kernel lets go when the holder dies."""
    home.run.mkdir(parents=True, exist_ok=True)
    with (home.run / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise StateError(f"{home.root} is held by {holder}; wait until it ends, or set FALAJ_HOME to another folder.") from None
        file.truncate(0)
        file.write(f"{command} (pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')} UTC)")
        file.flush()
        yield
        file.truncate(0)
