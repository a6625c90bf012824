"""Models judged by their rhythm: who is asked for together, and what becomes of the others where one fails. Runs are real, in this process."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from platform_assets import keys
from platform_assets.components import judging, monitoring_steps
from platform_assets.components.automation import failed_models
from platform_assets.components.jobs import JUDGED
from platform_assets.components.step import RECORD, key_of
from platform_assets.definitions import build_defs
from platform_assets.main_job import site
from platform_assets.main_job.bench import evaluate_models
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.spending import Asked, Month
from resources.dagster_instance import gate
from resources.parts import Parts, build_parts
from resources.testing.released import settings_of

NAMES = [f"given_{number:05}" for number in range(4)]
MINUTE = 60.0
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "__repository__"), keys.JUDGE_JOB)
COMPUTE = """
type: platform_assets.components.compute.Compute
attributes:
  default: dear
  profiles: {dear: {cpu: 1, memory: 1Gi, price_aed_per_hour: 60}}
"""


@dataclass
class Judged:
    """A home of four live models of one tenant, each with a window of answers that nobody has judged; ticks at a time of ours."""

    parts: Parts
    repository: dg.RepositoryDefinition
    monkeypatch: pytest.MonkeyPatch
    now: float = 0.0
    cursor: str | None = None

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.parts.settings.home.instance)) as instance:
            yield instance

    def tick(self, instance: dg.DagsterInstance, *, later: float = 0.0) -> list[dg.RunRequest]:
        self.now += later
        self.monkeypatch.setattr(judging.time, "time", lambda: self.now)
        context = dg.build_sensor_context(instance=instance, repository_def=self.repository, cursor=self.cursor)
        ticked = self.repository.get_sensor_def(keys.JUDGE_SENSOR).evaluate_tick(context)
        self.monkeypatch.undo()
        self.cursor = ticked.cursor
        return list(ticked.run_requests or [])

    def run(self, request: dg.RunRequest, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        job = self.repository.get_job(request.job_name or "")
        selection = list(request.asset_selection) if request.asset_selection else None
        return job.execute_in_process(instance=instance, asset_selection=selection, tags=dict(request.tags), raise_on_error=False)


def models_of(request: dg.RunRequest) -> list[str]:
    """Whom a request is about."""
    if request.asset_selection is None:
        return [name for name in NAMES if request.job_name == keys.monitor_job(name)]
    assert {key.path[2] for key in request.asset_selection} == set(JUDGED)
    return sorted({key.path[1] for key in request.asset_selection})


def verdicts(instance: dg.DagsterInstance) -> set[str]:
    found = instance.get_asset_records([key_of(keys.model_key(name, "retraining_verdict")) for name in NAMES])
    return {one.asset_entry.asset_key.path[1] for one in found if one.asset_entry.last_materialization_record}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    settings, schema = evaluate_models.write_home(folder, models=len(NAMES))
    site.prepare(settings)
    evaluate_models.prepare(NAMES, build_parts(settings, load_catalogue(settings.defs_root)), schema)
    return folder


@pytest.fixture
def judged(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """A copy of that home; the clock stands at the beginning of a minute."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    settings = settings_of(tmp_path)
    parts = build_parts(settings, load_catalogue(settings.defs_root))
    return Judged(parts, build_defs(parts).get_repository_def(), monkeypatch, now=time.time() // MINUTE * MINUTE)


def test_of_models_that_are_due_together_one_that_fails_neither_fails_nor_delays_another(judged: Judged) -> None:
    broken, others = NAMES[1], {*NAMES} - {NAMES[1]}
    with judged.instance() as instance:
        key = key_of(keys.model_key(broken, "rollout_verdict"))
        event = instance.get_latest_materialization_event(key)
        assert event is not None
        record = dict(event.asset_materialization.metadata[RECORD].value) | {"live_digest": "0" * 64}  # a release that is not there
        instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={RECORD: dg.MetadataValue.json(record)}))
        (request,) = judged.tick(instance)
        assert models_of(request) == NAMES
        assert judged.tick(instance, later=30.0) == [], "once a turn"
        result = judged.run(request, instance)
        failed = {event.step_key for event in result.all_events if event.is_step_failure}
        assert not result.success
        assert failed == {f"model__{broken}__drift_report"}
        assert verdicts(instance) == others
        for name in others:  # evidence of its own, as from a run of its own
            checks = [one for one in result.get_asset_check_evaluations() if one.asset_key.path[1] == name]
            assert sorted(one.check_name for one in checks) == ["feed_is_healthy", "service_is_as_released", "window_resembles_training"]
        spent = judged.parts.ledger.entries(Month.of(judged.now))
        assert {(one.model, one.outcome) for one in spent if one.stage == "model/drift_report"} == {
            *((name, "done") for name in others), (broken, "failed"),
        }  # fmt: skip
        assert {one.run_id for one in spent} == {result.run_id}
        asked = judged.tick(instance, later=MINUTE)
        assert [models_of(one) for one in asked] == [sorted(others), [broken]], "whose last asking gave no verdict is asked for alone"
        assert {one.tags[gate.TENANT_TAG] for one in asked[:1]} == {"default"}


def test_a_killed_run_is_gone_on_with_by_the_next_turn_each_model_alone(judged: Judged) -> None:
    with judged.instance() as instance:
        (request,) = judged.tick(instance)
        assert request.tags["dagster/max_retries"] == "0", "the next turn comes anyhow"
        child = os.fork()
        if child == 0:
            monitoring_steps.take_segments = lambda *_: os._exit(9)
            with judged.instance() as theirs:
                judged.run(request, theirs)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert judged.tick(instance, later=MINUTE) == [], "nobody has said yet that it is gone"
        (dead,) = instance.get_runs(dg.RunsFilter(job_name=keys.JUDGE_JOB))
        instance.report_run_failed(dead)
        asked = judged.tick(instance)
        assert [models_of(one) for one in asked] == [[name] for name in NAMES]
        assert len({one.run_key for one in asked}) == len(NAMES)


def test_a_model_of_a_run_that_has_not_ended_joins_once_it_has(judged: Judged) -> None:
    with judged.instance() as instance:
        training = create_run_for_test(
            instance, job_name=keys.train_job(NAMES[0]), status=dg.DagsterRunStatus.STARTED, tags={gate.MODEL_TAG: NAMES[0]}
        )
        (request,) = judged.tick(instance)
        assert models_of(request) == NAMES[1:]
        instance.report_run_failed(training)
        (late,) = judged.tick(instance, later=5.0)
        assert models_of(late) == NAMES[:1]
        assert [models_of(one) for one in judged.tick(instance, later=MINUTE)] == [[name] for name in NAMES], (
            "no run of those was seen to judge"
        )


def test_a_cursor_that_is_lost_asks_for_nobody_who_is_being_judged(judged: Judged) -> None:
    with judged.instance() as instance:
        (request,) = judged.tick(instance)
        create_run_for_test(instance, job_name=keys.JUDGE_JOB, status=dg.DagsterRunStatus.STARTED, tags=dict(request.tags))
        judged.cursor = None
        assert judged.tick(instance) == []


def test_a_model_that_never_went_live_or_never_answered_has_no_turn(judged: Judged) -> None:
    with judged.instance() as instance:
        instance.wipe_assets([key_of(keys.model_key(NAMES[0], "rollout_verdict")), key_of(keys.model_key(NAMES[1], "production_log"))])
        (request,) = judged.tick(instance)
    assert models_of(request) == NAMES[2:]


def test_what_one_model_may_not_spend_holds_none_of_the_others(judged: Judged) -> None:
    poor, root = NAMES[2], judged.parts.settings.defs_root
    path = root / "models" / poor / "defs.yaml"
    document = yaml.safe_load(path.read_text())
    document["attributes"]["budget"] = {"aed_per_month": 1}
    path.write_text(yaml.safe_dump(document))
    (root / "compute").mkdir()
    (root / "compute" / "defs.yaml").write_text(COMPUTE)
    parts = build_parts(judged.parts.settings, load_catalogue(root))
    for name in NAMES:  # two minutes of it cost two AED before
        with parts.ledger.measure(
            model=name, stage="model/drift_report", run_id="before", tenant="default", asked=Asked(price_aed_per_hour=60.0)
        ) as meter:
            meter.add(wall_seconds=120.0)
    poorer = Judged(parts, build_defs(parts).get_repository_def(), judged.monkeypatch, now=judged.now)
    with judged.instance() as instance:
        assert [models_of(one) for one in poorer.tick(instance)] == [[name] for name in NAMES]
        held = create_run_for_test(
            instance, job_name=keys.JUDGE_JOB, status=dg.DagsterRunStatus.QUEUED,
            tags={gate.MODEL_TAG: ",".join(NAMES), gate.HOLD_TAG: gate.HELD}, remote_job_origin=ORIGIN,
        )  # fmt: skip
        asked = poorer.tick(instance, later=MINUTE)
        ended = instance.get_run_by_id(held.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.CANCELED, "a budget broke between the question and the run"
    assert [models_of(one) for one in asked] == [[name] for name in NAMES]


def test_people_are_told_of_the_models_whose_steps_failed_and_of_nobody_else() -> None:
    run = dg.DagsterRun(job_name=keys.JUDGE_JOB, tags={gate.MODEL_TAG: "a,a__b,c"})
    assert failed_models(run, ["model__a__b__drift_report", "model__c__production_log"]) == ["a__b", "c"]
    assert failed_models(run, []) == ["a,a__b,c"], "a run that died says of nobody who it was"
