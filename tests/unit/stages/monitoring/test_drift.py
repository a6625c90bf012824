from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.networks.tokens import Tokeniser
from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.records import Feature, FeatureSchema, read_record, to_json
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.importance import share_importance
from platform_assets.stages.monitoring.reference import Reference, build_reference, measure_straying
from platform_assets.stages.monitoring.signals import Signal

SCHEMA = FeatureSchema(
    (Feature("price", "numeric", "v", "id"), Feature("channel", "category", "v", "id"), Feature("arrival", "date", "v", "id")),
    "cancelled", ("no", "yes"), "id", "booked",
)  # fmt: skip
SPEC = MonitoringSpec(window_rows=500)
IMPORTANCE = {"price": 0.6, "channel": 0.39, "arrival": 0.01}
WINDOW = Window(3, 1500, 1999, ("v1",))


def rows(count, *, seed=1, start=datetime(2016, 1, 1), price=100.0, channels=("web", "phone"), lead=20, missing=0.0):
    rng = np.random.default_rng(seed)
    booked = [start + timedelta(minutes=n) for n in range(count)]
    prices = rng.normal(price, 10, count)
    prices[rng.random(count) < missing] = np.nan
    return pa.table({
        "price": pa.array(prices, from_pandas=True),
        "channel": rng.choice(channels, count),
        "arrival": pa.array([at + timedelta(days=int(days)) for at, days in zip(booked, rng.integers(0, lead, count), strict=True)], pa.timestamp("us")),
        "booked": pa.array(booked, pa.timestamp("us")),
        "cancelled": rng.choice(["no", "yes"], count),
    })  # fmt: skip


def scores(count, *, seed=1, level=2.0):
    score = np.random.default_rng(seed).beta(level, 5, count)
    return np.column_stack([1 - score, score])


@pytest.fixture(scope="module")
def reference():
    return build_reference(rows(5000), schema=SCHEMA, probabilities=scores(5000), window_rows=500)


def report(reference, table, level=2.0):
    probabilities = scores(table.num_rows, seed=9, level=level)
    return report_window(reference, table, window=WINDOW, schema=SCHEMA, probabilities=probabilities, importance=IMPORTANCE, spec=SPEC)


def drifted(found):
    return {column.column for column in found.columns if column.drifted}


def test_a_window_like_the_training_data_does_not_drift_even_a_year_later(reference):
    found = report(reference, rows(500, seed=2, start=datetime(2017, 6, 1)))
    assert (found.drifted, drifted(found)) == (False, set())
    assert found.evidence == "window 3 (rows 1500 to 1999): no drift"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"price": 120.0}, "price"),
        ({"missing": 0.4}, "price"),
        ({"channels": ("web", "app")}, "channel"),
        ({"channels": ("web",)}, "channel"),
    ],
)
def test_a_shift_a_surge_of_missing_values_and_a_new_or_lost_category_are_found_and_named(reference, change, column):
    found = report(reference, rows(500, seed=2, **change))
    assert (found.drifted, drifted(found)) == (True, {column})
    assert f"moved are {column} by" in found.evidence


def test_an_input_that_the_model_hardly_uses_moves_without_an_alarm(reference):
    found = report(reference, rows(500, seed=2, lead=200))
    assert (found.drifted, drifted(found)) == (False, {"arrival"})
    assert found.evidence.endswith("no drift that the model leans on; moved: arrival")


def test_answers_that_move_are_drift_whatever_the_inputs_do(reference):
    found = report(reference, rows(500, seed=2), level=4.0)
    assert (found.drifted, drifted(found)) == (True, {"prediction"})


def test_a_reference_survives_json(reference):
    assert read_record(Reference, to_json(reference)) == reference


def test_the_reference_does_not_depend_on_the_order_of_rows(reference):
    order = np.random.default_rng(3).permutation(5000)
    assert build_reference(rows(5000).take(order), schema=SCHEMA, probabilities=scores(5000)[order], window_rows=500) == reference


def test_data_whose_own_blocks_stray_raises_the_threshold_and_one_odd_block_does_not():
    rng = np.random.default_rng(1)
    season = 3 * np.sin(np.arange(10_000) / 1500)
    steady, odd = rng.normal(size=10_000), np.where(np.arange(10_000) < 500, 50.0, rng.normal(size=10_000))
    strayed = [measure_straying(Signal("x", "x", "number", values), window_rows=500) for values in (steady, odd, steady + season)]
    assert strayed[0] < 0.1
    assert strayed[1] < 0.2
    assert strayed[2] > 0.5


def test_images_are_watched_by_brightness_and_contrast_and_many_classes_by_answer_and_confidence():
    schema = FeatureSchema((Feature("pixels", "image", "v", "id", 4),), "digit", ("0", "1", "2"), "id", "at")
    rng = np.random.default_rng(1)

    def table(scale):
        times = pa.array([datetime(2020, 1, 1) + timedelta(minutes=n) for n in range(600)], pa.timestamp("us"))
        return pa.table({"pixels": pa.array((scale * rng.random((600, 4))).tolist()), "at": times})

    shares = rng.dirichlet([1, 1, 1], 600)
    reference = build_reference(table(1.0), schema=schema, probabilities=shares, window_rows=100)
    found = report_window(reference, table(3.0), window=WINDOW, schema=schema, probabilities=shares, importance={"pixels": 1.0}, spec=SPEC)
    assert [column.column for column in found.columns] == ["pixels brightness", "pixels contrast", "prediction", "prediction confidence"]
    assert drifted(found) == {"pixels brightness", "pixels contrast"}


def test_texts_are_watched_by_length_and_by_the_share_of_unknown_pieces():
    schema = FeatureSchema((Feature("review", "text", "v", "id"),), "label", ("no", "yes"), "id", "at")
    tokeniser = Tokeniser(("review",), (" room", " was", " clean", " "), 16)
    rng = np.random.default_rng(1)

    def table(*words):
        times = pa.array([datetime(2020, 1, 1) + timedelta(minutes=n) for n in range(600)], pa.timestamp("us"))
        said = [" ".join(rng.choice(words, rng.integers(2, 5))) for _ in range(600)]
        return pa.table({"review": pa.array([None, *said[1:]]), "at": times})

    told = {"schema": schema, "probabilities": scores(600)}
    reference = build_reference(table("room", "was", "clean"), window_rows=100, tokeniser=tokeniser, **told)
    assert read_record(Reference, to_json(reference)) == reference
    given = {"window": WINDOW, "importance": {"review": 1.0}, "spec": SPEC, **told}
    assert drifted(report_window(reference, table("room", "was", "clean"), **given)) == set()
    assert drifted(report_window(reference, table("room", "was", "XXXXX"), **given)) == {"review unknown share"}
    assert "review length" in drifted(report_window(reference, table("room was clean was clean", "was room was"), **given))


def test_live_answers_are_held_against_answers_to_rows_the_model_has_not_seen():
    sure, unsure = np.tile([0.01, 0.99], (5000, 1)), scores(800)
    reference = build_reference(rows(5000), schema=SCHEMA, probabilities=sure, window_rows=500, unseen=unsure)
    answers = next(signal for signal in reference.signals if signal.name == "prediction")
    assert answers.rows == 800
    found = report_window(reference, rows(500), window=WINDOW, schema=SCHEMA, probabilities=unsure[:500], importance={}, spec=SPEC)
    assert "prediction" not in drifted(found)
    found = report_window(reference, rows(500), window=WINDOW, schema=SCHEMA, probabilities=sure[:500], importance={}, spec=SPEC)
    assert "prediction" in drifted(found)


def test_importance_falls_to_the_inputs_that_decide_and_sums_to_one():
    table = rows(1500)
    table = table.set_column(4, "cancelled", pa.array(np.where(table["price"].to_numpy() > 100, "yes", "no")))

    def answer(part):
        score = 1 / (1 + np.exp(-(part["price"].to_numpy() - 100) / 10))
        return np.column_stack([1 - score, score])

    shares = share_importance(table, schema=SCHEMA, kind="binary", answer=answer)
    assert shares == {"price": 1.0, "channel": 0.0, "arrival": 0.0}
