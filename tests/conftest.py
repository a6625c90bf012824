"""Fixtures for every tier, and the rule that a tier's tests live in its folder."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgres_process import find_programs, run_postgres
from redis_process import run_redis
from s3_process import run_s3
from xdist.scheduler import LoadFileScheduling

from platform_assets import logs
from platform_assets.specs.team import StoreSpec
from resources.settings import silence_telemetry

silence_telemetry()
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background: Dagster, run in here, would come to ignore SIGTERM as well
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("falaj", deadline=None)  # a test proves behaviour; how long it takes says what else the machine does
settings.load_profile("falaj")
CHECKOUT = Path(__file__).resolve().parent.parent
collect_ignore = ["cluster", "images"]  # `make test-cluster` and `make images-check` name them


FINISHED = {
    str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("tests/pipeline/test_*.py") if "finished: Finished" in path.read_text()
}


class _ByFile(LoadFileScheduling):
    """A file is one worker's; so are all files that look at the main job's finished home, which takes two minutes to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "finished" if file in FINISHED else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    return _ByFile(config, log)


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def real_hotels() -> Path:
    """The real hotel bookings; skips with the reason where they are not."""
    folder = os.environ.get("FALAJ_DATA")
    if not folder:
        pytest.skip("FALAJ_DATA is not set: real data sets are not here")
    path = (CHECKOUT / folder).resolve() / "hotel_bookings.parquet"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """DSN of a real PostgreSQL on loopback; skips with the reason where it is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server on this machine: install Debian's package postgresql")
    with run_postgres(programs) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory) -> Iterator[str]:
    """URL of a real Redis on loopback, one for the whole session."""
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis server on this machine: install Debian's package redis-server")
    with run_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[StoreSpec]:
    """Settings of a bucket on a server with S3's interface, one for the whole session."""
    with run_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def logs_of_a_process_of_its_own() -> Iterator[None]:
    """A test that lets this process write JSON, as a pod does, leaves it to the next one as it found it."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = list(root.handlers), root.level
    yield
    if logs.writes_json():
        logs._services.clear()
        root.handlers, sys.excepthook = handlers, hook
        root.setLevel(level)
