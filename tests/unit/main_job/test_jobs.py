"""A job that the main job runs in its own process asks admission like any other."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pipeline.tiny import DEFS, MODEL, TinyHome
from rich.console import Console

from platform_assets import keys
from platform_assets.errors import AdmissionError, StageError
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.progress import Bars
from platform_assets.specs.spending import Asked, Month


@pytest.fixture
def tiny(tmp_path: Path) -> TinyHome:
    """One model on a profile with a price, 30 AED of its tenant's 100 spent."""
    model = yaml.safe_load((DEFS / "models" / MODEL / "defs.yaml").read_text())
    dataset = yaml.safe_load((DEFS / "datasets" / "tiny_bookings" / "defs.yaml").read_text())
    dataset["attributes"]["source"] = {"kind": "file", "path": str(tmp_path / "nobody_brought_it.parquet")}
    profiles = {"dear": {"cpu": 1, "memory": "1Gi", "price_aed_per_hour": 20}}
    attributes = {"default": "dear", "profiles": profiles, "tenants": {"tests": {"budget": {"aed_per_month": 100}}}}
    compute = {"type": "platform_assets.components.compute.Compute", "attributes": attributes}
    for name, document in (("compute", compute), ("models/one", model), ("datasets/one", dataset)):
        (tmp_path / "defs" / name).mkdir(parents=True)
        (tmp_path / "defs" / name / "defs.yaml").write_text(yaml.safe_dump(document))
    home = TinyHome(tmp_path / "home", defs=tmp_path / "defs")
    spend(home, aed=30)
    return home


def spend(tiny: TinyHome, *, aed: float) -> None:
    asked = Asked("dear", price_aed_per_hour=20)
    with tiny.parts.ledger.measure(model=MODEL, stage="model/trained", run_id="earlier", tenant="tests", asked=asked) as meter:
        meter.add(wall_seconds=aed / 20 * 3600)


@pytest.fixture
def jobs(tiny: TinyHome):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Jobs(instance, tiny.repository(), Bars(Console(file=io.StringIO())), tiny.parts)


def test_over_the_budget_it_is_not_started_and_the_audit_log_says_so(tiny: TinyHome, jobs: Jobs) -> None:
    spend(tiny, aed=50)
    with pytest.raises(
        AdmissionError, match=r"tiny_cancellations__train was not started\. Held: expected cost 40\.0.* tenant tests has 80\.0"
    ):
        jobs.run(keys.train_job(MODEL))
    assert jobs.instance.get_runs() == []
    assert [(entry["action"], entry["actor"]) for entry in tiny.parts.audit.entries()] == [("hold", "falaj run")]


def test_within_it_is_promised_its_cost_until_it_ends(tiny: TinyHome, jobs: Jobs) -> None:
    with pytest.raises(StageError, match="nobody_brought_it"):
        jobs.run(keys.train_job(MODEL))
    assert tiny.parts.ledger.promised_runs() == {}
    (run,) = jobs.instance.get_runs()
    assert int(run.tags["dagster/priority"]) > 0, "it queues for GPUs like any other"
    (entry,) = [entry for entry in tiny.parts.ledger.entries(Month.of(time.time())) if entry.run_id == run.run_id]
    assert (entry.tenant, entry.model, entry.stage, entry.outcome) == ("tests", MODEL, "dataset/ingested", "failed")
    assert entry.asked.profile == "dear"


def test_a_signal_is_an_interrupt_though_the_clean_up_on_its_way_out_fails(jobs: Jobs) -> None:
    @dg.asset(key=keys.model_key(MODEL, "trained"))
    def cut_off() -> None:
        thread = threading.Thread(target=print)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            thread.start()
        finally:
            thread.join()  # never started: what the last error says is this, as in Dagster's own reader of messages

    job = dg.define_asset_job(keys.train_job(MODEL), selection=[cut_off])
    repository = dg.Definitions(assets=[cut_off], jobs=[job]).get_repository_def()
    with pytest.raises(KeyboardInterrupt):
        replace(jobs, repository=repository).run(keys.train_job(MODEL))


def test_a_signal_before_the_first_step_is_an_interrupt_too(jobs: Jobs) -> None:
    @dg.resource
    def slow_to_come(_: dg.InitResourceContext) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    @dg.asset(key=keys.model_key(MODEL, "trained"), required_resource_keys={"slow_to_come"})
    def never_begun() -> None: ...

    job = dg.define_asset_job(keys.train_job(MODEL), selection=[never_begun])
    repository = dg.Definitions(assets=[never_begun], jobs=[job], resources={"slow_to_come": slow_to_come}).get_repository_def()
    with pytest.raises(KeyboardInterrupt):
        replace(jobs, repository=repository).run(keys.train_job(MODEL))
