"""Stores, queues, logs and targets stand where a dataset's data may be, or nothing loads, starts or is placed."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets import keys
from platform_assets.specs.catalogue import Catalogue, load_catalogue
from platform_assets.specs.dataset import Transfer
from platform_assets.specs.places import Part, Place
from platform_assets.stages.governance.placing import check_places, find_misplaced, list_places, parts_of

SHIPPED = load_catalogue(Path(__file__).resolve().parents[4] / "platform_assets" / "defs")
MODEL = "hotel_cancellations"
DATASET = SHIPPED.models[MODEL].dataset
PARTS = [part for part in get_args(Part) if part != "edge box"]


def place(part: Part, law: str, *, where: str = "somewhere") -> Place:
    return Place(part, where, law, "team.toml: x.jurisdiction")


def with_transfer(**changes: object) -> Catalogue:
    basis = Transfer.model_validate({"to": "DE", "basis": "standard clauses, contract 17", "since": "2025-01-01", **changes})
    return replace(SHIPPED, datasets={**SHIPPED.datasets, DATASET: SHIPPED.datasets[DATASET].model_copy(update={"transfers": (basis,)})})


def test_a_place_abroad_is_told_with_the_whole_path_to_it_and_what_would_be_right() -> None:
    target = place("inference server", "DE", where="what FALAJ_SERVE_URL names, far.example")
    (fault,) = [fault for fault in check_places(SHIPPED, [target]) if MODEL in fault.file]
    assert (fault.file, fault.field) == (f"defs/models/{MODEL}/defs.yaml", "dataset")
    way = [f"dataset/{DATASET}/{state}" for state in ("ingested", "validated", "protected")]
    way += [f"model/{MODEL}/{state}" for state in keys.MODEL_STATES[: keys.MODEL_STATES.index("deployed") + 1]]
    assert fault.message.startswith(" -> ".join(way) + " -> inference server (what FALAJ_SERVE_URL names, far.example) would be in DE")
    assert "(team.toml: x.jurisdiction says so)" in fault.message
    assert "may only be in AE; name a place that stands in AE, or declare another residency or a transfer with" in fault.message


def test_a_server_that_is_several_parts_is_one_fault_a_dataset_and_none_again_for_its_models() -> None:
    database = [place(part, "US", where="postgresql at db.example") for part in ("runs", "audit log", "ledger", "clocks", "model registry")]
    faults = list(check_places(SHIPPED, database))
    assert {fault.file for fault in faults} == {SHIPPED.files[f"dataset/{name}"] for name in SHIPPED.datasets}
    assert len(faults) == len(SHIPPED.datasets)
    assert all("/ingested -> clocks, runs, audit log, ledger (postgresql at db.example) would be in US" in one.message for one in faults)


def test_a_place_that_only_a_later_state_comes_to_is_the_models_fault() -> None:
    assert [fault.file for fault in check_places(SHIPPED, [place("releases", "FR")])] == [
        SHIPPED.files[f"model/{name}"] for name in SHIPPED.models
    ]
    assert list(check_places(SHIPPED, [place("edge box", "AE")])) == []


@given(st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(["AE", "DE", "US"])), max_size=20), st.booleans())
def test_all_is_well_exactly_where_every_place_that_is_come_to_stands_under_an_allowed_law(told, crosses) -> None:
    catalogue = with_transfer() if crosses else SHIPPED
    places = [place(part, law, where=f"{part} {law}") for part, law in told]
    assets = [keys.dataset_key(DATASET, "ingested"), *(keys.model_key(MODEL, state) for state in keys.MODEL_STATES)]
    allowed = {"AE", "DE"} if crosses else {"AE"}
    reached = {part for asset in assets for part in parts_of(asset)}
    wrong = {(part, law) for part, law in told if law not in allowed and part in reached}
    found = find_misplaced(catalogue, assets, places=places, on=date(2026, 1, 1))
    assert {(one.place.part, one.jurisdiction) for one in found} == wrong
    assert len(found) == len(wrong)


def test_a_basis_holds_from_its_first_day_to_its_last_and_what_ended_is_named() -> None:
    catalogue, store = with_transfer(until="2025-12-31"), [place("tables", "DE")]
    asset = [keys.dataset_key(DATASET, "ingested")]
    for day in (date(2025, 1, 1), date(2025, 12, 31)):
        assert find_misplaced(catalogue, asset, places=store, on=day) == []
    for day in (date(2024, 12, 31), date(2026, 1, 1)):
        (late,) = find_misplaced(catalogue, asset, places=store, on=day)
        assert "may only be in AE (a transfer to DE is declared from 2025-01-01 to 2025-12-31)" in late.sentence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"until": "2024-12-31"}, "until 2024-12-31 is before since 2025-01-01"),
        ({"until": "soon"}, "valid date"),
        ({"since": "2025-02-30"}, "valid date"),
        ({"to": "Germany"}, "'Germany' is no jurisdiction; write its two letters of ISO 3166-1, such as AE"),
        ({"to": "de"}, "'de' is no jurisdiction"),
        ({"basis": "yes"}, "at least 10 characters"),
    ],
)
def test_a_malformed_basis_is_told(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_transfer(**changes)


def test_the_report_lists_every_place_with_its_ground_and_what_comes_there_first() -> None:
    places = [place("tables", "AE", where="home"), place("releases", "AE", where="home"), place("online values", "DE", where="cache")]
    places += [place("inference server", "US", where="far")]
    rows = {row["where"]: row for row in list_places(with_transfer(), MODEL, places=places, on=date(2026, 1, 1))}
    assert rows["home"]["parts"] == ["tables", "releases"]
    assert (rows["home"]["reached_by"], rows["home"]["ground"]) == (f"dataset/{DATASET}/ingested", "residency")
    assert rows["cache"]["reached_by"].startswith(f"features/{DATASET}/")
    assert rows["cache"]["ground"] == "standard clauses, contract 17"
    assert (rows["far"]["reached_by"], rows["far"]["ground"]) == (f"model/{MODEL}/deployed", "none")
