"""Whatever happens while a run is judged, it is queued or ends: raising would leave a backfill requested for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator.base import SubmitRunContext

from platform_assets import keys
from resources.dagster_instance import gate
from resources.dagster_instance.coordinator import AdmissionCoordinator, read_parts
from resources.settings import read_settings

DEFS = Path(__file__).resolve().parents[3] / "pipeline" / "defs"
INSTANCE = {
    "run_coordinator": {"module": "resources.dagster_instance.coordinator", "class": "AdmissionCoordinator"},
    "telemetry": {"enabled": False},
}


@dg.asset(key=keys.model_key("tiny_cancellations", "trained"))
def trained() -> None: ...


@dg.op
def nothing() -> None: ...


@dg.job
def of_nobody() -> None:
    nothing()


@pytest.fixture
def defs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(DEFS, tmp_path / "defs")
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FALAJ_DEFS", str(tmp_path / "defs"))
    return tmp_path / "defs"


@pytest.fixture
def instance(tmp_path: Path, defs_root: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=INSTANCE) as found:
        yield found


class Asked(SubmitRunContext):
    """As the web server hands it over, with the gateway's header."""

    def get_request_header(self, key: str) -> str | None:
        return {"X-Falaj-User": "amal (https://idp)%20"}.get(key)


def submit(
    instance: dg.DagsterInstance, job: dg.JobDefinition | None = None, context: type[SubmitRunContext] = SubmitRunContext, **tags: str
) -> dg.DagsterRun:
    job = job or dg.Definitions([trained]).resolve_implicit_global_asset_job_def()
    location = RegisteredCodeLocationOrigin("somewhere")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job.name)
    run = instance.create_run_for_job(job, tags=tags, remote_job_origin=origin)
    assert isinstance(instance.run_coordinator, AdmissionCoordinator)
    return instance.run_coordinator.submit_run(context(run, workspace=None))


def told(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    entries = [record.event_log_entry for record in instance.get_records_for_run(run.run_id).records]
    return "\n".join(entry.dagster_event.message or "" for entry in entries if entry.dagster_event)


def test_whoever_asked_at_the_gateway_is_the_actor_whatever_the_run_s_tags_claim(instance):
    run = submit(instance, context=Asked, **{"falaj/actor": "somebody else"})
    assert gate.launcher_of(run.tags) == "amal (https://idp) "


def test_a_run_is_queued_with_its_verdict_in_its_log(instance):
    run = submit(instance)
    assert run.status == dg.DagsterRunStatus.QUEUED
    assert (run.tags["falaj/hold"], run.tags["falaj/model"], run.tags["falaj/tenant"]) == ("no", "tiny_cancellations", "tests")
    assert "Admitted: expected cost 0.00 AED (its profile has no price)." in told(instance, run)
    assert read_parts(read_settings()).audit.entries() == []


def test_a_run_submitted_twice_is_judged_once(instance):
    run = submit(instance)
    again = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))
    assert again.status == dg.DagsterRunStatus.QUEUED
    assert told(instance, run).count("Admitted") == 1


def test_a_job_that_makes_no_assets_of_ours_is_queued_like_any_other(instance):
    run = submit(instance, of_nobody, **{"dagster/priority": "99999999999", "falaj/tenant": "somebody"})
    assert (run.status, run.tags["falaj/hold"], run.tags["falaj/tenant"]) == (dg.DagsterRunStatus.QUEUED, "no", "none")
    assert int(run.tags["dagster/priority"]) < 99999999999


def test_what_cannot_be_judged_is_held_until_it_can_be(instance, defs_root):
    good = (defs_root / "models" / "tiny_cancellations" / "defs.yaml").read_text()
    (defs_root / "models" / "tiny_cancellations" / "defs.yaml").write_text(good.replace("owner:", "owned:"))
    run = submit(instance, **{"falaj/hold": "no"})
    assert (run.status, run.tags["falaj/hold"]) == (dg.DagsterRunStatus.QUEUED, "yes")
    assert "Held: it could not be judged; it is tried again every minute." in told(instance, run)
    assert "did you mean 'owner'?" in told(instance, run)

    (defs_root / "models" / "tiny_cancellations" / "defs.yaml").write_text(good)
    (held,) = gate.held_runs(instance)
    assert gate.judge_again(instance, held, read_parts(read_settings())).answer == "admit"
    assert gate.held_runs(instance) == []


@pytest.mark.parametrize(
    ("tags", "launcher"),
    [
        ({}, "web UI or API"),
        ({"dagster/sensor_name": "drift_found__retrain", "dagster/backfill": "b"}, "drift_found__retrain"),
        ({"dagster/backfill": "abcd"}, "backfill abcd"),
        ({"dagster/from_automation_condition": "true"}, "declarative automation"),
    ],
)
def test_a_run_tells_who_asked_for_it(tags, launcher):
    assert gate.launcher_of(tags) == launcher


def test_no_instance_file_can_leave_out_that_held_runs_stay(instance):
    limits = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
    assert {"key": "falaj/hold", "value": "yes", "limit": 0} in limits
