"""A step that ran out of memory: the next profile of the declared chain, where the budget has room for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from platform_assets import keys
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.compute import BudgetSpec, ComputeProfile, ComputeSpec, TenantSpec
from platform_assets.stages.admission.payer import asked_of
from platform_assets.stages.placement.binding import COMPUTE, K8S_CONFIG, bind
from resources.admission import Admission
from resources.dagster_instance.larger import LargerProfiles
from resources.testing.state import MemoryLedger

DEFS = Path(__file__).resolve().parents[3] / "pipeline" / "defs"
MODEL, TENANT = "tiny_cancellations", "tests"
SMALL = ComputeProfile(cpu=1, memory="4Gi", price_aed_per_hour=1, larger="large")
LARGE = SMALL.model_copy(update={"memory": "64Gi", "price_aed_per_hour": 20, "larger": "several", "node_selector": {"a": "b"}})
SEVERAL = LARGE.model_copy(update={"nodes": 2, "larger": None})


@dg.asset(key=dg.AssetKey(keys.model_key(MODEL, "trained")))
def trained() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    job = dg.Definitions([trained], jobs=[dg.define_asset_job("train")]).resolve_job_def("train")
    return instance.create_run_for_job(job)


def larger(*, budget: float = 100) -> tuple[LargerProfiles, MemoryLedger]:
    ledger = MemoryLedger()
    tenants = {TENANT: TenantSpec(budget=BudgetSpec(aed_per_month=budget, when_spent="hold"))}
    profiles = {"small": SMALL, "large": LARGE, "several": SEVERAL}
    catalogue = replace(load_catalogue(DEFS), compute=ComputeSpec(default="small", profiles=profiles, tenants=tenants))
    for profile, aed in ((SMALL, 1), (LARGE, 30)):  # an hour, and an hour and a half
        name = next(name for name, one in profiles.items() if one is profile)
        asked = asked_of(name, profile)
        with ledger.measure(model=MODEL, stage="model/trained", run_id="earlier", tenant=TENANT, asked=asked) as meter:
            meter.add(wall_seconds=aed / profile.price_aed_per_hour * 3600)
    return LargerProfiles(Admission(catalogue, ledger)), ledger


def test_the_larger_profile_is_taken_and_what_it_costs_is_promised(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    found, ledger = larger()
    room = found.ask(instance, run, step_key="model__tiny_cancellations__trained", profile="small")
    assert room.profile == "large"
    assert "'large' (64Gi in place of 4Gi, 20.00 AED an hour). Admitted: expected cost 30.00 AED" in room.sentence
    assert set(ledger.promised_runs()) == {run.run_id}


def test_a_budget_that_has_no_room_is_named_and_the_run_keeps_what_it_was_promised(
    instance: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    found, ledger = larger(budget=40)
    room = found.ask(instance, run, step_key="model__tiny_cancellations__trained", profile="small")
    assert room.profile is None
    assert room.sentence.startswith("It is not tried again on 'large' (64Gi). Held: expected cost 30.00 AED")
    assert "tenant tests has 31.00 spent" in room.sentence
    assert set(ledger.promised_runs()) == {run.run_id}


def test_the_end_of_the_chain_and_more_nodes_of_the_same_memory_are_no_room(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    found, _ = larger()
    last = found.ask(instance, run, step_key="model__tiny_cancellations__trained", profile="several")
    assert (last.profile, "No profile larger than 'several' is declared" in last.sentence) == (None, True)
    nodes = found.ask(instance, run, step_key="model__tiny_cancellations__trained", profile="large")
    assert (nodes.profile, "'several' has no more memory a node than 'large' (64Gi)" in nodes.sentence) == (None, True)


def test_a_pod_on_the_larger_profile_asks_for_what_it_has_and_is_told_its_name() -> None:
    found, _ = larger()
    declared = dict(bind(SMALL, name="small", tenant=TENANT, model=MODEL, impact="high").tags)
    bound = found.bind(declared, profile="large")
    config = json.loads(bound[K8S_CONFIG])
    assert bound[COMPUTE] == "large"
    assert config["container_config"]["resources"]["limits"] == {"cpu": "1000m", "memory": "64Gi"}
    assert config["container_config"]["env"] == [{"name": "FALAJ_PROFILE", "value": "large"}]
    assert (config["pod_spec_config"]["node_selector"], config["pod_spec_config"]["priority_class_name"]) == ({"a": "b"}, "falaj-high")
