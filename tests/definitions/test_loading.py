"""Definitions load offline, quickly, without heavy libraries, and the graph is the designed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

HEAVY = ("torch", "lightning", "feast", "mlflow", "great_expectations", "onnxruntime", "boto3", "kubernetes")
PROBE = """
import json, resource, sys
from platform_assets.definitions import defs
repository = defs().get_repository_def() if callable(defs) else defs.get_repository_def()
usage = resource.getrusage(resource.RUSAGE_SELF)
graph = repository.asset_graph
print(json.dumps({
    "cpu": usage.ru_utime + usage.ru_stime,
    "loaded": [name for name in %r if name in sys.modules],
    "assets": {key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys) for key in graph.get_all_asset_keys()},
    "checks": sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys),
    "jobs": sorted(name for name in repository.job_names if not name.startswith("__")),
    "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    "schedules": sorted(schedule.name for schedule in repository.schedule_defs),
}))
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> dict:
    environment = {**os.environ, "FALAJ_HOME": str(tmp_path_factory.mktemp("home"))}
    environment.pop("FALAJ_DEFS", None)
    answer = subprocess.run(
        [sys.executable, "-c", PROBE % (HEAVY,)], capture_output=True, text=True, env=environment, cwd=checkout, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def test_loading_leaves_heavy_libraries_out(probe: dict) -> None:
    assert probe["loaded"] == []


def test_the_graph_is_the_committed_snapshot(probe: dict) -> None:
    """A change of the graph is a change of this file: see it in review. Rewrite it with FALAJ_SNAPSHOT=write."""
    snapshot = Path(__file__).parent / "graph_snapshot.json"
    found = {name: probe[name] for name in ("assets", "checks", "jobs", "sensors", "schedules")}
    if os.environ.get("FALAJ_SNAPSHOT") == "write":
        snapshot.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(snapshot.read_text())


def test_every_model_has_its_whole_life(probe: dict) -> None:
    from platform_assets.keys import MODEL_STATES

    for model in ("hotel_cancellations", "digits"):
        assert {f"model/{model}/{state}" for state in MODEL_STATES} <= set(probe["assets"])
    assert probe["assets"]["model/digits/rollout_verdict"] == ["model/digits/deployed"]


def test_loading_creates_nothing_on_disk(tmp_path: Path, checkout: Path) -> None:
    environment = {**os.environ, "FALAJ_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", PROBE % (HEAVY,)], capture_output=True, env=environment, cwd=checkout, check=True)
    assert not (tmp_path / "home").exists()


def test_the_way_of_the_data_that_residency_is_held_along_is_the_graphs(probe: dict, checkout: Path) -> None:
    from platform_assets.specs.catalogue import load_catalogue
    from platform_assets.stages.governance.residency import trace

    catalogue = load_catalogue(checkout / "platform_assets" / "defs")
    for asset in probe["assets"]:
        way = ["/".join(key) for key in trace(catalogue, asset.split("/"))]
        assert (way[0].split("/")[::2], way[-1]) == (["dataset", "ingested"], asset)
        assert all(before in probe["assets"][after] for before, after in pairwise(way)), way
