"""Admission over real declarations and a ledger: who is promised what, what shrinks, what a month looks like."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from platform_assets import keys
from platform_assets.specs.catalogue import read_catalogue
from platform_assets.specs.compute import BudgetSpec, ComputeProfile, ComputeSpec, SlaSpec, TenantSpec
from platform_assets.specs.places import Place
from platform_assets.specs.spending import Month
from platform_assets.stages.admission.payer import asked_of
from resources.admission import Admission
from resources.testing.state import MemoryLedger

DEFS = Path(__file__).resolve().parents[2] / "pipeline" / "defs"
MODEL, TENANT, DATASET = "tiny_cancellations", "tests", "tiny_bookings"
TRAINED = keys.model_key(MODEL, "trained")
INGESTED = keys.dataset_key(DATASET, "ingested")
DEAR = ComputeProfile(cpu=1, memory="1Gi", price_aed_per_hour=20)
PAYER = (TENANT, MODEL)


def declared(*, budget: float | None = 100, when: str = "hold", **training):
    catalogue, faults = read_catalogue(DEFS)
    assert not faults
    tenants = {TENANT: TenantSpec(budget=BudgetSpec(aed_per_month=budget, when_spent=when) if budget is not None else None)}
    compute = ComputeSpec(
        default="dear", profiles={"dear": DEAR, "abroad": DEAR.model_copy(update={"jurisdiction": "US"})}, tenants=tenants
    )
    model = catalogue.models[MODEL]
    model = model.model_copy(update={"training": model.training.model_copy(update=training)})
    return replace(catalogue, compute=compute, models={MODEL: model})


@pytest.fixture
def ledger():
    return MemoryLedger()


def spend(ledger, *, aed: float, stage: str = "model/trained", model: str = MODEL) -> None:
    with ledger.measure(model=model, stage=stage, run_id="earlier", tenant=TENANT, asked=asked_of("dear", DEAR)) as meter:
        meter.add(wall_seconds=aed / 20 * 3600)


def ask(admission: Admission, run: str, *assets, going=lambda runs: dict.fromkeys(runs, True), **more):
    return admission.ask(run, assets or [TRAINED], still_going=going, **more)


def test_admitted_runs_are_counted_before_they_have_spent_anything(ledger):
    spend(ledger, aed=30)
    admission = Admission(declared(), ledger)
    assert [ask(admission, run).answer for run in "abc"] == ["admit", "admit", "hold"]
    assert "30.00 spent and 60.0" in ask(admission, "c").sentence


def test_asking_again_is_not_promised_twice(ledger):
    spend(ledger, aed=30)
    admission = Admission(declared(), ledger)
    assert [ask(admission, "a").answer for _ in range(5)] == ["admit"] * 5


def test_what_was_promised_to_a_run_that_ended_is_free_again_at_once(ledger):
    spend(ledger, aed=30)
    admission = Admission(declared(), ledger)
    ask(admission, "a"), ask(admission, "b")
    assert ask(admission, "c", going=lambda runs: {run: run != "a" for run in runs}).answer == "admit"
    assert set(ledger.promised_runs()) == {"b", "c"}


def test_a_run_that_dagster_does_not_know_yet_keeps_its_promise_for_a_while(ledger):
    spend(ledger, aed=30)
    catalogue = declared()
    for run in "ab":
        ask(Admission(catalogue, ledger), run)
    assert ask(Admission(catalogue, ledger), "c", going=lambda _: {}).answer == "hold"
    assert ask(Admission(catalogue, ledger, now=lambda: time.time() + 120), "c", going=lambda _: {}).answer == "admit"


def test_an_approved_run_is_promised_its_cost_although_it_breaks_the_budget(ledger):
    spend(ledger, aed=60)
    admission = Admission(declared(), ledger)
    assert ask(admission, "a", approved=True).answer == "hold"
    assert ledger.spending(Month.of(time.time())).promised[PAYER] == pytest.approx(60, abs=0.1)


def test_a_held_run_is_promised_nothing(ledger):
    spend(ledger, aed=60)
    assert ask(Admission(declared(), ledger), "a").answer == "hold"
    assert ledger.promised_runs() == {}
    abroad = Admission(declared(), ledger, places=[Place("artefacts", "a bucket", "US", "team.toml")])
    verdict = ask(abroad, "b")
    assert verdict.answer == "refuse"
    assert "-> artefacts (a bucket) would be in US (team.toml says so)" in verdict.sentence


def test_a_new_month_has_its_whole_budget(ledger):
    spend(ledger, aed=60)
    later = Month.of(time.time()).next.begins.timestamp() + 60
    catalogue = declared()
    assert ask(Admission(catalogue, ledger), "a").answer == "hold"
    assert ask(Admission(catalogue, ledger, now=lambda: later), "a").answer == "admit"


def test_a_datasets_steps_are_paid_by_the_one_model_their_run_is_for(ledger):
    spend(ledger, aed=30)
    spend(ledger, aed=5, stage="dataset/ingested")
    admission = Admission(declared(), ledger)
    (bill,) = admission.bills([TRAINED, INGESTED])
    assert ((bill.tenant, bill.model), bill.aed) == (PAYER, pytest.approx(35, abs=0.1))
    assert admission.bills([INGESTED]) == []
    assert ask(admission, "a", INGESTED).sentence == "Admitted: nobody pays for it."


def test_a_training_dearer_than_it_may_be_is_refused(ledger):
    spend(ledger, aed=30)
    verdict = ask(Admission(declared(max_cost_aed=29.0), ledger), "a")
    assert verdict.answer == "refuse"
    assert "training.max_cost_aed allows (29.00)" in verdict.sentence


def test_data_is_not_taken_where_it_may_not_be(ledger):
    verdict = ask(Admission(declared(compute="abroad"), ledger), "a")
    assert verdict.answer == "refuse"
    assert "may only be in AE" in verdict.sentence
    assert ledger.promised_runs() == {}


def test_a_tenant_without_a_budget_spends_freely(ledger):
    spend(ledger, aed=10_000)
    assert ask(Admission(declared(budget=None), ledger), "a").answer == "admit"


def test_trials_shrink_before_anything_stops(ledger):
    spend(ledger, aed=85)
    admission = Admission(declared(), ledger)
    assert admission.shrink(MODEL, 20) == (14, "14 of 20 may run: tenant tests has taken 85.00 of its 100.00 AED this month.")
    assert Admission(declared(budget=1000), ledger).shrink(MODEL, 20) == (20, "All 20 may run.")


def test_a_run_is_as_urgent_as_its_model_says(ledger):
    catalogue = declared()
    hurried = catalogue.models[MODEL].model_copy(update={"sla": SlaSpec(impact="critical")})
    patient, urgent = (
        Admission(catalogue, ledger, now=lambda: 1e9),
        Admission(replace(catalogue, models={MODEL: hurried}), ledger, now=lambda: 1e9),
    )
    assert urgent.priority([TRAINED]) > patient.priority([TRAINED]) == patient.priority([INGESTED])


def test_a_month_is_told_by_tenant_and_by_model_against_its_budgets(ledger):
    spend(ledger, aed=25)
    with ledger.measure(model=DATASET, stage="dataset/ingested", run_id="refresh"):
        pass
    admission = Admission(declared(), ledger)
    ask(admission, "a")
    told = admission.overview(Month.of(time.time()))
    nobody, model = told["models"]
    (tenant,) = told["tenants"]
    assert (nobody["tenant"], nobody["model"], nobody["budget_aed"]) == ("", DATASET, None)
    assert (model["tenant"], model["model"], model["runs"], model["budget_aed"], model["share"]) == (TENANT, MODEL, 1, None, None)
    assert model["spent_aed"] == pytest.approx(25, abs=0.1)
    assert (tenant["budget_aed"], tenant["promised_aed"]) == (100, pytest.approx(25, abs=0.1))
    assert tenant["share"] == pytest.approx(0.5, abs=0.01)
