"""What the area loads is what it says: copies of a shipped model that load like it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from platform_assets.main_job.bench import online_write
from platform_assets.main_job.bench.core import run_contestant
from platform_assets.main_job.bench.orchestration import write_models
from platform_assets.specs.catalogue import load_catalogue


def test_each_copy_is_a_model_on_a_dataset_of_its_own(tmp_path: Path) -> None:
    write_models(tmp_path / "defs", count=3)
    catalogue = load_catalogue(tmp_path / "defs")
    assert [catalogue.dataset_of(name).name for name in catalogue.models] == ["digits_000", "digits_001", "digits_002"]
    figures = run_contestant("platform_assets.main_job.bench.load_location", [str(tmp_path / "defs"), str(tmp_path / "home")])
    assert figures["assets"] > 3 * 10
    assert figures["assets"] % 3 == figures["checks"] % 3 == 0
    assert figures["cpu_seconds"] > figures["import_cpu_seconds"] > 0
    assert not (tmp_path / "home").exists(), "loading makes nothing"


@pytest.mark.parametrize("place", ["sqlite", "redis"])
def test_every_entity_is_written_and_then_those_that_changed(tmp_path: Path, place: str) -> None:
    if place == "redis" and shutil.which("redis-server") is None:
        pytest.skip("no Redis server on this machine: install Debian's package redis-server")
    assert online_write.write(1000, tmp_path, place)["cpu_seconds"] > 0
