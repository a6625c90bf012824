from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.networks.tokens import Tokeniser
from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, judge_labels, report_sketch, report_window
from platform_assets.stages.monitoring.importance import share_importance
from platform_assets.stages.monitoring.reference import Reference, build_reference, hardly_passed
from platform_assets.stages.monitoring.signals import take_signals
from platform_assets.stages.monitoring.sketch import merge_sketches, sketch_signals

SCHEMA = FeatureSchema(
    (Feature("price", "numeric", "v", "id"), Feature("channel", "category", "v", "id"), Feature("arrival", "date", "v", "id")),
    "cancelled", ("no", "yes"), "id", "booked",
)  # fmt: skip
SPEC = MonitoringSpec(window_rows=500, min_effect=0.1)
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
    return build_reference(rows(5000), schema=SCHEMA, probabilities=scores(5000), spec=SPEC)


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
        ({"price": 110.0}, "price"),
        ({"missing": 0.4}, "price missing"),
        ({"channels": ("web", "phone", "phone")}, "channel"),
    ],
)
def test_a_shift_and_a_surge_of_missing_values_are_found_and_named(reference, change, column):
    found = report(reference, rows(500, seed=2, **change))
    assert (found.drifted, drifted(found)) == (True, {column})
    assert f"moved are {column} by" in found.evidence


def test_an_input_that_the_model_hardly_uses_moves_without_an_alarm(reference):
    found = report(reference, rows(500, seed=2, lead=200))
    assert (found.drifted, found.harmless, drifted(found)) == (False, True, {"arrival", "arrival out of range"})
    assert found.evidence.endswith("no drift that the model leans on; moved: arrival, arrival out of range")


def test_answers_that_move_are_drift_whatever_the_inputs_do(reference):
    found = report(reference, rows(500, seed=2), level=4.0)
    assert (found.drifted, drifted(found)) == (True, {"prediction"})


def test_a_reference_survives_json(reference):
    assert read_record(Reference, to_json(reference)) == reference


def test_the_reference_does_not_depend_on_the_order_of_rows(reference):
    order = np.random.default_rng(3).permutation(5000)
    assert build_reference(rows(5000).take(order), schema=SCHEMA, probabilities=scores(5000)[order], spec=SPEC) == reference


@pytest.mark.parametrize(
    ("channels", "found"),
    [(("web", "app"), {"channel", "channel new", "channel vanished"}), (("web",), {"channel", "channel vanished"})],
)
def test_new_and_vanished_categories_are_named(reference, channels, found):
    evidence = report(reference, rows(500, seed=2, channels=channels))
    assert drifted(evidence) == found
    new = [column for column in evidence.columns if column.statistic == "new"]
    assert all(column.now.startswith("app ") and column.was == "none" for column in new)


def test_values_that_no_training_row_had_and_a_column_that_stands_still_are_found(reference):
    table = rows(500, seed=2)
    prices = table["price"].to_numpy().copy()
    prices[:40] *= 100
    assert "price out of range" in drifted(report(reference, table.set_column(0, "price", pa.array(prices))))
    stuck = report(reference, table.set_column(0, "price", pa.array(np.full(500, 100.0))))
    assert {"price", "price constant"} <= drifted(stuck)


def test_a_drift_in_correlation_alone_is_found_and_the_pair_is_named():
    def related(count, seed, same):
        table = rows(count, seed=seed)
        rng = np.random.default_rng(seed)
        middle = 100 if same else np.median(table["price"].to_numpy())
        said = table["price"].to_numpy() > middle
        channels = np.where(said, "web", "phone")
        return table.set_column(1, "channel", pa.array(channels if same else rng.permutation(channels)))

    reference = build_reference(related(5000, 1, same=True), schema=SCHEMA, probabilities=scores(5000), spec=SPEC)
    assert drifted(report(reference, related(500, 2, same=True))) == set()
    found = report(reference, related(500, 2, same=False))
    assert (found.drifted, drifted(found)) == (True, {"all columns together", "price with channel"})
    pair = next(column for column in found.moved if column.column == "price with channel")
    assert (pair.layer, pair.feature, pair.importance) == ("joint", "channel", 0.39)


def test_a_window_in_batches_is_reported_as_it_is_whole(reference):
    table, shares = rows(500, seed=2, price=120.0), scores(500, seed=9)
    given = {"window": WINDOW, "importance": IMPORTANCE, "spec": SPEC}
    parts = [
        sketch_signals(take_signals(table.slice(at, 100), schema=SCHEMA, probabilities=shares[at : at + 100]), seed=at)
        for at in range(0, 500, 100)
    ]
    between = (str(table["booked"][0].as_py()), str(table["booked"][-1].as_py()))
    streamed = report_sketch(reference, merge_sketches(parts), between=between, **given)
    whole = report_window(reference, table, schema=SCHEMA, probabilities=shares, **given)
    assert {column.column: round(column.effect, 9) for column in streamed.columns} == {c.column: round(c.effect, 9) for c in whole.columns}
    assert streamed.evidence == whole.evidence


def test_many_inputs_that_each_count_for_little_count_together():
    columns = [f"x{n}" for n in range(10)]
    schema = FeatureSchema(tuple(Feature(name, "numeric", "v", "id") for name in columns), "y", ("no", "yes"), "id", "booked")

    def table(seed, moved):
        rng = np.random.default_rng(seed)
        times = pa.array([datetime(2016, 1, 1) + timedelta(minutes=n) for n in range(2000)], pa.timestamp("us"))
        return pa.table({**{name: rng.normal(float(name in moved), 1, 2000) for name in columns}, "booked": times})

    reference = build_reference(table(1, ()), schema=schema, probabilities=None, spec=SPEC)
    given = {"window": WINDOW, "schema": schema, "probabilities": None, "importance": dict.fromkeys(columns, 0.02), "spec": SPEC}
    assert report_window(reference, table(2, columns[:2]), **given).harmless
    assert report_window(reference, table(2, columns[:3]), **given).drifted


def test_what_blocks_of_the_past_hardly_pass_grows_with_their_straying_and_not_with_one_odd_block():
    rng = np.random.default_rng(1)
    steady = np.abs(rng.normal(0.03, 0.01, (20, 1)))
    odd, season = steady.copy(), steady + np.linspace(0, 0.5, 20)[:, None]
    odd[0] = 0.9
    limits = [float(hardly_passed(effects)[0]) for effects in (steady, odd, season)]
    assert limits[0] < 0.1
    assert limits[1] < 0.1
    assert limits[2] > 0.5
    assert hardly_passed(steady[:2]).tolist() == [0.0]


def test_images_are_watched_by_brightness_and_contrast_and_many_classes_by_answer_and_confidence():
    schema = FeatureSchema((Feature("pixels", "image", "v", "id", 4),), "digit", ("0", "1", "2"), "id", "at")
    rng = np.random.default_rng(1)

    def table(scale):
        times = pa.array([datetime(2020, 1, 1) + timedelta(minutes=n) for n in range(600)], pa.timestamp("us"))
        return pa.table({"pixels": pa.array((scale * rng.random((600, 4))).tolist()), "at": times})

    shares = rng.dirichlet([1, 1, 1], 600)
    reference = build_reference(table(1.0), schema=schema, probabilities=shares, spec=MonitoringSpec(window_rows=100, min_effect=0.1))
    found = report_window(reference, table(3.0), window=WINDOW, schema=schema, probabilities=shares, importance={"pixels": 1.0}, spec=SPEC)
    assert [column.column for column in found.columns if column.layer != "quality"] == [
        "pixels brightness",
        "pixels contrast",
        "prediction",
        "prediction confidence",
    ]
    assert {"pixels brightness", "pixels contrast"} <= drifted(found) <= {column.column for column in found.columns if column.feature}


def test_texts_are_watched_by_length_and_by_the_share_of_unknown_pieces():
    schema = FeatureSchema((Feature("review", "text", "v", "id"),), "label", ("no", "yes"), "id", "at")
    tokeniser = Tokeniser(("review",), (" room", " was", " clean", " "), 16)
    rng = np.random.default_rng(1)

    def table(*words):
        times = pa.array([datetime(2020, 1, 1) + timedelta(minutes=n) for n in range(600)], pa.timestamp("us"))
        said = [" ".join(rng.choice(words, rng.integers(2, 5))) for _ in range(600)]
        return pa.table({"review": pa.array([None, *said[1:]]), "at": times})

    told = {"schema": schema, "probabilities": scores(600)}
    reference = build_reference(table("room", "was", "clean"), spec=MonitoringSpec(window_rows=100), tokeniser=tokeniser, **told)
    assert read_record(Reference, to_json(reference)) == reference
    given = {"window": WINDOW, "importance": {"review": 1.0}, "spec": SPEC, **told}
    assert drifted(report_window(reference, table("room", "was", "clean"), **given)) == set()
    assert drifted(report_window(reference, table("room", "was", "XXXXX"), **given)) >= {"review unknown share", "review words"}
    assert "review length" in drifted(report_window(reference, table("room was clean was clean", "was room was"), **given))


def test_outcomes_are_held_against_those_of_the_training_rows(reference):
    def labelled(share):
        return pa.chunked_array([np.random.default_rng(5).choice(["no", "yes"], 500, p=[1 - share, share])])

    assert judge_labels(reference, labelled(0.5), spec=SPEC).drifted is False
    found = judge_labels(reference, labelled(0.8), spec=SPEC)
    assert (found.drifted, found.layer, found.column) == (True, "label", "label")
    assert {found.was.split()[0], found.now.split()[0]} <= {"no", "yes"}
    unknown = build_reference(rows(500).drop_columns("cancelled"), schema=SCHEMA, probabilities=scores(500), spec=SPEC)
    assert judge_labels(unknown, labelled(0.8), spec=SPEC) is None


def test_live_answers_are_held_against_answers_to_rows_the_model_has_not_seen():
    sure, unsure = np.tile([0.01, 0.99], (5000, 1)), scores(800)
    reference = build_reference(rows(5000), schema=SCHEMA, probabilities=sure, spec=SPEC, unseen=unsure)
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
