"""A real PostgreSQL on loopback, for the tests of what can live in one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from platform_assets.stages.training.heartbeat import connect_postgresql

PATIENCE_SECONDS = 60


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian puts the newest version."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def run_postgres(programs: Path, *, tls: tuple[Path, Path, Path] | None = None) -> Iterator[str]:
    """Start a server with a fresh database; yield its DSN. `tls`: its certificate, key, and whose certificates of clients it takes."""
    folder = Path(tempfile.mkdtemp(prefix="falaj-postgres-"))  # not below pytest's folders: those are closed to other users
    root = os.geteuid() == 0
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}  # it refuses to run as root
    if root:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, quiet = folder / "data", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "timeout": PATIENCE_SECONDS}
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust", "-U", "falaj", "--no-sync", "-E", "UTF8"], check=True, **quiet, **who
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={folder}"
        if tls is not None:
            options += _lay_certificates(data, tls, owner="postgres" if root else None)
        subprocess.run([programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], check=True, **quiet, **who)
        try:
            yield f"postgresql://falaj@127.0.0.1:{port}/postgres"
        finally:
            os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGINT)  # fast shutdown
            subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], check=False, **quiet, **who)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lay_certificates(data: Path, files: tuple[Path, Path, Path], *, owner: str | None) -> str:
    for name, file in zip(("server.crt", "server.key", "root.crt"), files, strict=True):
        shutil.copyfile(file, data / name)
        (data / name).chmod(0o600)
        if owner is not None:
            shutil.chown(data / name, owner, owner)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n")
    return " -c ssl=on -c ssl_ca_file=root.crt"


def own_database(server: str) -> str:
    """A database of its own on a shared server; its DSN."""
    name = f"own_{uuid4().hex[:8]}"
    with closing(connect_postgresql(server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"
