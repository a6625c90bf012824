"""The init container of the code location, as its manifest calls it: it asks a team's servers, and the pod does not start where one is away."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from postgres_process import own_database

from platform_assets.specs.team import StoreSpec


@pytest.fixture
def environment(checkout: Path, postgres: str, redis_server: str, s3_server: StoreSpec, tmp_path: Path) -> dict[str, str]:
    """The tenant's settings as the manifests hand them over, but for where its servers stand and what its folders are."""
    database = urlsplit(own_database(postgres))
    told = {
        "postgresql": {"url": f"postgresql://{database.username}@{database.hostname}:{database.port}{database.path}"},
        "redis": {"url": redis_server},
        "store": {"url": s3_server.url, "endpoint": s3_server.endpoint, "credentials": str(s3_server.credentials)},
    }
    team = "\n".join(
        f"[{table}]\njurisdiction = 'AE'\n" + "\n".join(f"{key} = '{value}'" for key, value in keys.items()) for table, keys in told.items()
    )
    (tmp_path / "team.toml").write_text(team)
    named = yaml.safe_load((checkout / "infra" / "kubernetes" / "base" / "environment.yaml").read_text())["data"]
    here = {"FALAJ_TEAM": str(tmp_path / "team.toml"), "FALAJ_HOME": str(tmp_path / "home"), "PGPASSWORD": database.password or "unset"}
    return {**named, **here, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}


# What a process held at most, by its own kernel's account of this program: wait4's figure begins with what the process that forked it held.
TOLD = """
import atexit, runpy, sys
atexit.register(lambda: print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))))
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""


def start(checkout: Path, environment: dict[str, str]) -> tuple[int, str, int]:
    """Run the container's command: its exit status, what it wrote, and the most memory that it held, in bytes."""
    code = next(yaml.safe_load_all((checkout / "infra" / "kubernetes" / "base" / "dagster.yaml").read_text()))["spec"]["template"]["spec"]
    (container,) = code["initContainers"]
    python, *arguments = container["command"]
    assert (python, arguments[0], container["resources"]["limits"]["memory"]) == ("python", "-m", "256Mi")
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *arguments[1:]], cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    said, _, held = done.stdout.rstrip("\n").rpartition("\n")
    return done.returncode, f"{said}\n", int(held) * 1024


def test_it_finds_the_teams_servers_within_its_memory(checkout: Path, environment: dict[str, str]) -> None:
    code, said, held = start(checkout, environment)
    assert (code, said) == (0, f"The servers of {environment['FALAJ_TEAM']} answer, and hold what is needed.\n")
    assert held < 256 << 20


def test_servers_that_are_away_are_named_all_together_and_the_pod_does_not_start(checkout: Path, environment: dict[str, str]) -> None:
    file = Path(environment["FALAJ_TEAM"])
    redis = next(line for line in file.read_text().splitlines() if "redis://" in line)
    endpoint = next(line for line in file.read_text().splitlines() if "endpoint" in line)
    file.write_text(file.read_text().replace(redis, "url = 'redis://127.0.0.1:1/0'").replace(endpoint, "endpoint = 'http://127.0.0.1:2'"))
    code, said, _ = start(checkout, environment)
    assert code == 1
    assert "Redis at 127.0.0.1:1 was asked what it is and said: " in said
    assert "http://127.0.0.1:2 was asked to take an object and said: " in said
    assert "PostgreSQL" not in said
    assert "Traceback" not in said


@contextmanager
def passing_on(port: int, server: str) -> Iterator[None]:
    """Listen, and pass on to a database's server whatever comes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port)) as there:
                back = threading.Thread(target=self.copy, args=(there, self.request))
                back.start()
                self.copy(self.request, there)
                back.join()

        def copy(self, source: socket.socket, target: socket.socket) -> None:
            while chunk := source.recv(65536):
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler) as gate:
        threading.Thread(target=gate.serve_forever, args=(0.05,), daemon=True).start()
        yield
        gate.shutdown()


def test_a_database_that_is_away_is_named_and_the_next_try_finds_it_when_it_is_back(checkout: Path, environment: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = Path(environment["FALAJ_TEAM"])
    url = next(line for line in file.read_text().splitlines() if "postgresql://" in line).partition("'")[2].rstrip("'")
    place = urlsplit(url)
    file.write_text(file.read_text().replace(f":{place.port}/", f":{port}/", 1))
    code, said, _ = start(checkout, environment)
    assert code == 1  # and the kubelet tries it again, 10 s later, 20, 40, up to 300
    assert f"PostgreSQL at 127.0.0.1:{port} was asked for database {place.path[1:]} as falaj and said: " in said
    assert "Connection refused" in said
    assert "Traceback" not in said
    with passing_on(port, url):
        code, said, _ = start(checkout, environment)
    assert (code, said) == (0, f"The servers of {file} answer, and hold what is needed.\n")
