"""The UI, a backfill, declarative automation and a sensor ask for the same asset, on a real instance: admission answers each alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon import controller
from dagster_graphql.test.utils import execute_dagster_graphql
from pipeline.four_ways_location import trained
from pipeline.tiny import DEFS, MODEL, TinyHome, wait_for

from platform_assets import keys
from platform_assets.errors import StateError
from platform_assets.main_job import site
from platform_assets.main_job.spending import approve_run
from platform_assets.specs.spending import Asked
from resources.dagster_instance import gate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LOCATION = Path(__file__).parent / "four_ways_location.py"
WAYS = ("UI", "backfill", "automation", "sensor")
FORGED = {
    "dagster/priority": "999999999999", "falaj/hold": "no", "falaj/model": "somebody", "falaj/tenant": "somebody",
    "falaj/approved_by": "the minister", "dagster-k8s/config": '{"container_config": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}}',
}  # fmt: skip
_LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def write_declarations(root: Path) -> None:
    """Four models whose training has a price: one over a budget that holds, one over one that refuses, two that may run."""
    model = yaml.safe_load((DEFS / "models" / MODEL / "defs.yaml").read_text())
    for name, more in (
        ("kept", {"tenant": "poor"}),
        ("barred", {"budget": {"aed_per_month": 10, "when_spent": "refuse"}}),
        ("patient", {}),
        ("hurried", {"sla": {"deadline": "5m"}}),
    ):
        attributes = {**model["attributes"], "name": name, "training": {**model["attributes"]["training"], "compute": "dear"}, **more}
        _write(root / "models" / name, {**model, "attributes": attributes})
    _write(root / "datasets" / "tiny_bookings", yaml.safe_load((DEFS / "datasets" / "tiny_bookings" / "defs.yaml").read_text()))
    declare_budget(root, aed=30)


def declare_budget(root: Path, *, aed: float) -> None:
    profiles = {name: {"cpu": 1, "memory": "1Gi", "price_aed_per_hour": price} for name, price in (("local", 0), ("dear", 20))}
    attributes = {"default": "local", "profiles": profiles, "tenants": {"poor": {"budget": {"aed_per_month": aed}}}}
    _write(root / "compute", {"type": "platform_assets.components.compute.Compute", "attributes": attributes})


def _write(folder: Path, document: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump(document))


class Site:
    """The home, its instance with real daemons, and how an asset is asked for."""

    def __init__(self, tiny: TinyHome, instance: dg.DagsterInstance, context: WorkspaceProcessContext) -> None:
        self.tiny, self.instance, self.context = tiny, instance, context

    def launch_from_ui(self, model: str, **tags: str) -> str:
        selector = {
            "repositoryLocationName": LOCATION.name, "repositoryName": "__repository__", "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": trained(model).path}],
        }  # fmt: skip
        metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        with self.context.create_request_context() as request:
            answer = execute_dagster_graphql(request, _LAUNCH, {"params": {"selector": selector, "executionMetadata": metadata}})
        assert answer.data["launchRun"]["__typename"] == "LaunchRunSuccess", answer.data
        return answer.data["launchRun"]["run"]["runId"]

    def backfill(self, model: str) -> str:
        subset = AssetGraphSubset(non_partitioned_asset_keys={trained(model)})
        asked = PartitionBackfill.from_asset_graph_subset(
            backfill_id=f"backfill-{model}", backfill_timestamp=time.time(), tags={}, dynamic_partitions_store=self.instance,
            asset_graph_subset=subset, title=None, description=None, run_config=None,
        )  # fmt: skip
        self.instance.add_backfill(asked)
        return asked.backfill_id

    def runs(self, model: str) -> dict[str, dg.DagsterRun]:
        """Runs of a model's training, by the way they were asked for."""
        found = {}
        for run in self.instance.get_runs():
            if run.asset_selection == {trained(model)} and "re-asked" not in run.tags:
                tags = run.tags
                way = (
                    "backfill" if "dagster/backfill" in tags else "automation" if "dagster/from_automation_condition" in tags
                    else "sensor" if tags.get("dagster/sensor_name") == "asks_once" else "UI"
                )  # fmt: skip
                found[way] = run
        return found

    def told(self, run: dg.DagsterRun) -> str:
        """Everything that the run's event log says."""
        entries = [record.event_log_entry for record in self.instance.get_records_for_run(run.run_id).records]
        return "\n".join(entry.dagster_event.message or "" for entry in entries if entry.dagster_event)

    def answered(self, model: str, word: str) -> int:
        """How many ways have led to an answer that begins so."""
        return sum(word in self.told(run) for run in self.runs(model).values())

    def audit(self, run: dg.DagsterRun) -> list[dict]:
        return [entry for entry in self.tiny.parts.audit.entries(subject=f"run/{run.run_id}") if entry["action"] != "launch"]


def spend(tiny: TinyHome, model: str, tenant: str, *, hours: float) -> None:
    asked = Asked("dear", price_aed_per_hour=20)
    with tiny.parts.ledger.measure(model=model, stage="model/trained", run_id=f"earlier-{model}", tenant=tenant, asked=asked) as meter:
        meter.add(wall_seconds=hours * 3600)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything was asked for in every way, and had time to be answered."""
    root = tmp_path_factory.mktemp("four-ways")
    write_declarations(root / "defs")
    tiny = TinyHome(root / "home", defs=root / "defs")
    site.prepare(tiny.settings)
    spend(tiny, "kept", "poor", hours=1)
    spend(tiny, "barred", "tests", hours=1)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**tiny.environment, "DAGSTER_HOME": str(tiny.home.instance)}.items():
            patch.setenv(name, value)
        patch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", 2)  # of the backfill daemon, else 30
        instance = stack.enter_context(tiny.instance())
        context = stack.enter_context(
            WorkspaceProcessContext(instance, PythonFileTarget(str(LOCATION), None, str(Path.cwd()), LOCATION.name))
        )
        here = Site(tiny, instance, context)
        for model in ("kept", "barred"):
            here.launch_from_ui(model, **FORGED)
            here.backfill(model)
        here.launch_from_ui("patient", **FORGED)
        here.launch_from_ui("hurried")
        daemons = [stack.enter_context(daemon) for daemon in controller.create_daemons_from_instance(instance)]
        running = stack.enter_context(controller.DagsterDaemonController(context, daemons))
        wait_for(lambda: here.answered("kept", "Held:") == here.answered("barred", "Refused:") == 4, seconds=90, what="eight answers")
        wait_for(lambda: _status(here, "barred") == BulkActionStatus.COMPLETED_FAILED, seconds=60, what="the end of the refused backfill")
        yield here
        running.__exit__(None, None, None)
        tiny.end_everything()


def _status(here: Site, model: str) -> BulkActionStatus:
    return here.instance.get_backfill(f"backfill-{model}").status


@pytest.mark.parametrize("way", WAYS)
def test_a_run_over_a_budget_that_holds_stays_queued_and_says_why(asked: Site, way: str) -> None:
    run = asked.runs("kept")[way]
    sentence = "tenant poor has 20.00 spent and 0.00 promised of its 30.00 AED"
    assert run.status == dg.DagsterRunStatus.QUEUED
    assert run.tags["falaj/hold"] == "yes"
    assert sentence in asked.told(run)
    (entry,) = asked.audit(run)
    assert (entry["action"], sentence in entry["detail"]["sentence"]) == ("hold", True)
    assert entry["detail"]["expected_aed"] == {"poor/kept": pytest.approx(20, abs=0.1)}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_over_a_budget_that_refuses_ends_cancelled_and_says_why(asked: Site, way: str) -> None:
    run = asked.runs("barred")[way]
    sentence = "model barred has 20.00 spent and 0.00 promised of its 10.00 AED"
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert sentence in asked.told(run)
    (entry,) = asked.audit(run)
    assert (entry["action"], sentence in entry["detail"]["sentence"]) == ("refuse", True)


def test_the_audit_log_says_who_asked(asked: Site) -> None:
    actors = {way: asked.audit(run)[0]["actor"] for way, run in asked.runs("kept").items()}
    assert actors == {"UI": "web UI or API", "backfill": "backfill backfill-kept", "automation": "automates_kept", "sensor": "asks_once"}
    assert asked.tiny.parts.audit.verify() > 0


def test_a_held_backfill_waits_and_a_refused_one_ends(asked: Site) -> None:
    assert _status(asked, "kept") == BulkActionStatus.REQUESTED
    assert _status(asked, "barred") == BulkActionStatus.COMPLETED_FAILED


def test_a_nearer_deadline_overtakes_what_was_asked_for_before(asked: Site) -> None:
    def started(model: str) -> float | None:
        run = asked.runs(model)["UI"]
        events = asked.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.PIPELINE_STARTING).records
        return events[0].event_log_entry.timestamp if events else None

    wait_for(lambda: started("patient") and started("hurried"), seconds=60, what="both starts")
    assert started("hurried") < started("patient")


@pytest.mark.parametrize("model", ["kept", "patient"])
def test_a_launchers_own_tags_bind_nothing(asked: Site, model: str) -> None:
    tags = asked.runs(model)["UI"].tags
    hurried = asked.runs("hurried")["UI"].tags
    assert (tags["falaj/model"], tags["falaj/tenant"]) == (model, "poor" if model == "kept" else "tests")
    assert (tags["falaj/compute"], tags["dagster-k8s/config"], tags["falaj/approved_by"]) == ("dear", "{}", "")
    assert 0 < int(tags["dagster/priority"]) < int(hurried["dagster/priority"])


def test_a_person_releases_a_held_run_and_is_named(asked: Site) -> None:
    run = asked.runs("kept")["UI"]
    with pytest.raises(StateError, match="0 held runs begin with 'nothing'"):
        approve_run(asked.tiny.settings, "nothing", who=None)
    approve_run(asked.tiny.settings, run.run_id[:8], who="amal")
    assert asked.audit(run)[-1]["actor"] == "amal"
    wait_for(lambda: asked.instance.get_run_by_id(run.run_id).is_finished, seconds=60, what="the approved run's end")
    assert "Approved by amal. It had been: Held: " in asked.told(run)
    assert asked.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE, "it ran: its inputs were never made"


def test_a_raised_budget_lets_held_runs_go_one_by_one_as_far_as_it_reaches(asked: Site) -> None:
    """Three are held yet, 20 AED each, 20 are spent: 65 AED are enough for two of them."""
    declare_budget(asked.tiny.settings.defs_root, aed=65)
    held = {run.run_id for run in gate.held_runs(asked.instance)}
    repository = asked.tiny.repository()
    sensor = repository.get_sensor_def(keys.HELD_SENSOR)
    answer = sensor.evaluate_tick(dg.build_sensor_context(instance=asked.instance, repository_def=repository))
    assert "Admitted: expected cost 20.0" in answer.skip_message
    left = {run.run_id for run in gate.held_runs(asked.instance)}
    assert (len(held), len(left)) == (3, 1)
    assert left < held
