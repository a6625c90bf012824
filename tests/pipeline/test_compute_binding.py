"""The same assets started four ways on a real instance: each run's plan has the assets' own binding, whatever its launcher wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.controller import DagsterDaemonController, create_daemon_grpc_server_registry, create_daemons_from_instance
from pipeline import bound_location as location
from pipeline.tiny import DEFS, TinyHome, wait_for

from platform_assets.main_job import site
from platform_assets.stages.placement.binding import COMPUTE, GPUS, K8S_CONFIG

if TYPE_CHECKING:
    from starlette.testclient import TestClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:Using `httpx`")]
BOTH = [location.ON_CPU, location.ON_GPU]
COMPUTE_YAML = """
type: platform_assets.components.compute.Compute
attributes:
  default: cpu-small
  profiles:
    cpu-small: {cpu: 2, memory: 4Gi, price_aed_per_hour: 0.4}
    gpu-small: {accelerator: {count: 2}, cpu: 8, memory: 64Gi, price_aed_per_hour: 29, node_selector: {falaj.ae/pool: gpu}}
"""
LAUNCH = """
mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } } }
"""
BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHome]:
    defs = tmp_path / "defs"
    shutil.copytree(DEFS, defs)
    (defs / "compute").mkdir()
    (defs / "compute" / "defs.yaml").write_text(COMPUTE_YAML)
    file = defs / "models" / location.MODEL / "defs.yaml"
    model = yaml.safe_load(file.read_text())
    model["attributes"]["training"]["compute"] = "gpu-small"
    file.write_text(yaml.safe_dump(model))
    home = TinyHome(tmp_path / "home", defs=defs)
    site.prepare(home.settings)
    for name, value in {**home.environment, "DAGSTER_HOME": str(home.home.instance)}.items():
        monkeypatch.setenv(name, value)
    try:
        yield home
    finally:
        home.end_everything()


@contextmanager
def platform(instance: dg.DagsterInstance) -> Iterator[tuple[TestClient, ExitStack, WorkspaceProcessContext]]:
    """The web server's GraphQL, and what the daemons need, over one code server."""
    target = PythonFileTarget(location.__file__, attribute=None, working_directory=str(DEFS.parents[2]), location_name="bound")
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.testclient import TestClient

    with ExitStack() as stack:
        registry = stack.enter_context(create_daemon_grpc_server_registry(instance))
        context = stack.enter_context(WorkspaceProcessContext(instance, target, grpc_server_registry=registry))
        yield TestClient(create_app_from_workspace_process_context(context)), stack, context


def ask(web: TestClient, query: str, params: dict[str, Any]) -> dict[str, Any]:
    answer = web.post("/graphql", json={"query": query, "variables": {"params": params}}).json()
    assert "errors" not in answer, answer
    (found,) = answer["data"].values()
    assert found["__typename"] in ("LaunchRunSuccess", "LaunchBackfillSuccess"), found
    return found


def way_of(run: dg.DagsterRun) -> str:
    tags = run.tags
    if "dagster/backfill" in tags and "dagster/from_automation_condition" not in tags:
        return "backfill"
    return "automation" if "dagster/from_automation_condition" in tags else "sensor" if "dagster/sensor_name" in tags else "web"


def test_the_binding_holds_however_the_assets_are_started(tiny: TinyHome) -> None:
    tags = [{"key": key, "value": value} for key, value in location.HOSTILE.items()]
    assets = [{"path": key.path} for key in BOTH]
    repository = {"repositoryName": "__repository__", "repositoryLocationName": "bound"}
    with tiny.instance() as instance, platform(instance) as (web, stack, context):
        selector = {**repository, "jobName": "__ASSET_JOB", "assetSelection": assets}
        ask(web, LAUNCH, {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}})
        ask(web, BACKFILL, {"assetSelection": assets, "allPartitions": True, "tags": tags})
        stack.enter_context(
            DagsterDaemonController(context, create_daemons_from_instance(instance), grpc_server_registry=context._grpc_server_registry)
        )
        wait_for(lambda: _ticks(instance, location.AUTOMATION), seconds=60, what="a look of the automation")
        instance.report_runless_asset_event(dg.AssetMaterialization(location.ARRIVES))
        wait_for(lambda: len(_done(instance)) >= 4, seconds=150, what="four finished runs")
        runs = {way_of(run): run for run in _done(instance)}
        assert set(runs) == {"web", "backfill", "automation", "sensor"}
        for way, run in runs.items():
            cpu, gpu = _bindings(instance, run)
            assert (cpu[COMPUTE], cpu[GPUS], gpu[COMPUTE], gpu[GPUS]) == ("cpu-small", "0", "gpu-small", "2"), way
            assert _limits(cpu) == {"cpu": "2000m", "memory": "4Gi"}, way
            assert _limits(gpu) == {"cpu": "8000m", "memory": "64Gi", "nvidia.com/gpu": "2"}, way
            assert json.loads(gpu[K8S_CONFIG])["pod_spec_config"]["node_selector"] == {"falaj.ae/pool": "gpu"}, way
            assert "node_selector" not in json.loads(cpu[K8S_CONFIG])["pod_spec_config"], way
            assert _pools(instance, run) == {location.ON_CPU: None, location.ON_GPU: "falaj-gpu-small"}, way
            assert {run.tags.get(name) for name in ("falaj/tenant", "falaj/model")} == {"tests", location.MODEL}, way
            assert run.tags["dagster/priority"] != location.HOSTILE["dagster/priority"], way
            assert (run.tags[COMPUTE], run.tags[GPUS]) == ("cpu-small,gpu-small", "2"), way
            assert run.tags.get(K8S_CONFIG, "{}") == "{}", way
        made = instance.get_latest_materialization_event(location.ON_GPU)
        assert made is not None
        assert made.asset_materialization is not None
        asked, got = (made.asset_materialization.metadata[name].value for name in ("compute_asked", "compute_got"))
        assert (asked["profile"], asked["gpus"]) == ("gpu-small", 2)
        assert got["gpus"] == 0 or got["device"] != "cpu"


def _done(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])))


def _ticks(instance: dg.DagsterInstance, sensor: str) -> int:
    states = [state for state in instance.all_instigator_state() if state.instigator_name == sensor]
    ticks = [tick for state in states for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)]
    return sum(tick.status != TickStatus.STARTED for tick in ticks)


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[dg.AssetKey, Any]:
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    assert len(plan.step_keys_to_execute) == 2
    return {output.properties.asset_key: step for step in plan.steps for output in step.outputs if output.properties.asset_key in BOTH}


def _bindings(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[dict[str, str], dict[str, str]]:
    steps = _steps(instance, run)
    return steps[location.ON_CPU].tags, steps[location.ON_GPU].tags


def _pools(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[dg.AssetKey, str | None]:
    return {key: step.pool for key, step in _steps(instance, run).items()}


def _limits(tags: dict[str, str]) -> dict[str, str]:
    resources = json.loads(tags[K8S_CONFIG])["container_config"]["resources"]
    assert resources["limits"] == resources["requests"]
    return resources["limits"]
