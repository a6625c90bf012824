"""A declared cycle: mixtures of phases are what a window would look like, and a cycle hides no drift and raises no alarm."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.reference import Reference, build_reference
from platform_assets.stages.monitoring.season import like_period, mix, phases_of, shares_of, store_phase
from platform_assets.stages.monitoring.signals import Signal
from platform_assets.stages.monitoring.sketch import sketch_signals, summarise

SCHEMA = FeatureSchema((Feature("load", "numeric", "", ""), Feature("tariff", "category", "", "")), "", (), "", "at")
ROWS, DAYS = 100, 49  # a window is a day of these rows
WEEKLY = MonitoringSpec(window_rows=ROWS, season="week", min_effect=0.05)
PLAIN = WEEKLY.model_copy(update={"season": None})


def days(first, count, *, seed, shift=0.0):
    """Rows of days whose load swings by three deviations over the week; each day has a little of its own."""
    rng = np.random.default_rng(seed)
    day = np.repeat(np.arange(first, first + count), ROWS)
    own = np.repeat(rng.normal(0, 0.05, count), ROWS)
    load = 3.0 * ((day % 7) >= 5) + own + rng.normal(size=len(day)) + shift
    tariff = np.where(rng.random(len(day)) < np.where(day % 7 >= 5, 0.9, 0.1), "low", "high")
    at = np.datetime64("2026-01-05") + day * np.timedelta64(1, "D") + np.tile(np.arange(ROWS), count) * np.timedelta64(60, "s")
    return pa.table({"load": load, "tariff": tariff, "at": at.astype("datetime64[us]")})


@pytest.fixture(scope="module")
def references():
    train = days(0, DAYS, seed=1)
    return {spec.season: build_reference(train, schema=SCHEMA, probabilities=None, spec=spec) for spec in (WEEKLY, PLAIN)}


def judge(reference, rows, spec):
    window = Window(0, 0, rows.num_rows - 1, ("v",))
    return report_window(reference, rows, window=window, schema=SCHEMA, probabilities=None, importance=None, spec=spec)


def test_days_like_those_before_raise_no_alarm_in_any_phase(references):
    flags = [judge(references["week"], days(DAYS + at, 1, seed=100 + at), WEEKLY).drifted for at in range(49)]
    assert sum(flags) <= 2


def test_a_shift_smaller_than_the_cycle_is_found_with_it_and_hidden_without(references):
    found = {
        spec.season: [judge(references[spec.season], days(DAYS + at, 1, seed=at, shift=1.0), spec).drifted for at in range(14)]
        for spec in (WEEKLY, PLAIN)
    }
    assert all(found["week"])
    assert not any(found[None])


def test_a_weekend_in_the_middle_of_the_week_is_a_drift(references):
    weekend = days(DAYS + 5, 1, seed=3)
    moved = weekend.set_column(2, "at", pa.array(weekend["at"].to_numpy() - np.timedelta64(3, "D")))
    assert not judge(references["week"], weekend, WEEKLY).drifted
    assert {"load", "tariff"} <= {column.column for column in judge(references["week"], moved, WEEKLY).moved}
    assert not judge(references[None], moved, PLAIN).drifted


def test_a_window_of_a_whole_week_is_compared_with_whole_weeks(references):
    spec = WEEKLY.model_copy(update={"window_rows": 7 * ROWS})
    reference = build_reference(days(0, DAYS, seed=1), schema=SCHEMA, probabilities=None, spec=spec)
    report = judge(reference, days(DAYS, 7, seed=5), spec)
    assert not report.drifted
    assert next(column for column in report.columns if column.column == "load").effect < 0.05


def test_a_reference_with_its_phases_is_stored_and_read_as_it_was(references):
    assert read_record(Reference, to_json(references["week"])) == references["week"]
    assert len(references["week"].phases) == 7
    assert references[None].phases == ()
    older = replace(references["week"], phases=(), season=None)
    assert older.like({0: 1.0}) == {summary.name: summary for summary in older.signals}


@pytest.mark.parametrize(
    ("season", "at", "phase"),
    [("day", "2026-03-04T17:59:00", 5), ("week", "2026-03-04T00:00:00", 2), ("year", "2026-03-04T00:00:00", 2), ("year", None, -1)],
)
def test_phases_follow_the_calendar(season, at, phase):
    events = pa.chunked_array([pa.array([None if at is None else datetime.fromisoformat(at)], pa.timestamp("us"))])
    assert phases_of(events, season).tolist() == [phase]


@given(st.lists(st.integers(-1, 11), min_size=1, max_size=60))
def test_shares_of_phases_add_up(phases):
    assert sum(shares_of(np.array(phases)).values()) == pytest.approx(1)


def summary_of(kind, values):
    held = np.asarray(values, float) if kind == "number" else pa.chunked_array([pa.array(values, pa.string())])
    return summarise(sketch_signals([Signal("x", "x", kind, held, len(values))], seed=0))["x"]


@settings(max_examples=40)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=50), st.lists(st.integers(-9, 9), min_size=1, max_size=50), st.floats(0.05, 0.95))
def test_a_mixture_has_the_distribution_function_between_its_parts(one, other, share):
    parts = [summary_of("number", values) for values in (one, other)]
    whole = summary_of("number", one + other)
    mixed = np.array(mix(whole, [(share, parts[0]), (1 - share, parts[1])]).points)
    for value in range(-9, 10):
        wanted = share * np.mean(np.array(one) <= value) + (1 - share) * np.mean(np.array(other) <= value)
        assert abs(np.mean(mixed <= value) - wanted) <= 1 / len(mixed) + 1e-9


@settings(max_examples=40)
@given(st.lists(st.sampled_from("abc"), min_size=5, max_size=50), st.lists(st.sampled_from("bcd"), min_size=5, max_size=50))
def test_a_mixture_of_one_phase_is_that_phase_and_what_only_another_has_is_known(one, other):
    parts = [summary_of("category", values) for values in (one, other)]
    whole = summary_of("category", one + other)
    mixed = mix(whole, [(1.0, parts[0])])
    assert {word: count for word, count in mixed.counts.items() if count} == parts[0].counts
    assert set(mixed.counts) == set(whole.counts)
    assert mixed.rows == len(one)


def test_too_few_rows_of_a_phase_are_replaced_by_the_whole():
    whole = {"x": summary_of("number", list(range(1000)))}
    few = {3: store_phase(3, {"x": summary_of("number", [5.0] * 10)})}
    assert like_period(whole, few, {3: 1.0})["x"].points[-1] == 999
    assert like_period(whole, {}, {3: 1.0})["x"].rows == 1000
