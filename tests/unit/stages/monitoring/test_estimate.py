from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.measures import measure
from platform_assets.specs.estimate import WindowEstimate
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.stages.monitoring.drift import Window
from platform_assets.stages.monitoring.estimate import BLIND, Calibration, calibrate, estimate_window

WINDOW = Window(3, 0, 999, ("v",))
SURE = {"binary": 2.0, "multiclass": 3.0}


def answers(kind, rows, *, seed, spread=1.0, overstated=1.0):
    """Rows that are answered with what is true of them, but that the log odds are `overstated` times too large; and their labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, SURE[kind] * spread, (rows, 2 if kind == "binary" else 4))
    odds[:, 0] = 0 if kind == "binary" else odds[:, 0]
    true = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    told = np.exp(overstated * odds) / np.exp(overstated * odds).sum(axis=1, keepdims=True)
    return told, (true.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


def estimate(shares, calibration, kind, *, promised=0.8, drop=0.03):
    return estimate_window(shares, window=WINDOW, last_event="2020", calibration=calibration, kind=kind, promised=promised, drop=drop)


@pytest.mark.parametrize(("kind", "metric"), [("binary", "auroc"), ("multiclass", "accuracy")])
def test_what_labels_then_show_lies_in_the_interval_although_the_model_overstates(kind, metric):
    calibration = calibrate(*answers(kind, 3000, seed=1, overstated=2.0), kind=kind)
    inside = []
    for seed in range(2, 42):
        shares, labels = answers(kind, 1000, seed=seed, overstated=2.0)
        found = estimate(shares, calibration, kind)
        inside.append(found.low <= measure(labels, probabilities=shares, kind=kind)[metric] <= found.high)
        assert (found.metric, found.high - found.low < 0.12) == (metric, True)
    assert np.mean(inside) >= 0.9


def test_rows_the_model_is_less_sure_of_are_estimated_lower_and_a_changed_concept_is_not_seen():
    shares, labels = answers("binary", 3000, seed=1)
    calibration = calibrate(shares, labels, kind="binary")
    promised = measure(labels, probabilities=shares, kind="binary")["auroc"]
    unsure = estimate(answers("binary", 1000, seed=2, spread=0.3)[0], calibration, "binary", promised=promised)
    assert unsure.dropped
    assert unsure.sentence.endswith("that is a drop")
    changed, outcomes = answers("binary", 1000, seed=3)
    assert measure(1 - outcomes, probabilities=changed, kind="binary")["auroc"] < 0.2
    blind = estimate(changed, calibration, "binary", promised=promised)
    assert not blind.dropped
    assert blind.sentence.endswith(BLIND)


@pytest.mark.parametrize("labels", [np.zeros(500, int), np.ones(500, int)])
def test_nothing_is_calibrated_on_one_class_or_on_few_rows(labels):
    shares, both = answers("binary", 500, seed=1)
    assert calibrate(shares, labels, kind="binary") is None
    assert calibrate(shares[:99], both[:99], kind="binary") is None
    assert estimate(shares[:99], Calibration(1.0, 0.0, 0.0), "binary") is None


@given(st.floats(0.01, 0.2), st.floats(0.5, 2.0), st.integers(0, 5))
def test_an_estimate_lies_in_its_interval_and_the_order_of_rows_says_nothing(off, slope, seed):
    calibration = Calibration(slope, 0.1, off)
    shares = answers("binary", 200, seed=seed)[0]
    found = estimate(shares, calibration, "binary")
    assert 0 <= found.low <= found.value <= found.high <= 1
    turned = estimate(shares[::-1], calibration, "binary")
    assert turned.value == pytest.approx(found.value)
    assert read_record(WindowEstimate, to_json(found)) == found
    assert found.high - found.low <= estimate(shares, replace(calibration, off=2 * off), "binary").high - found.low + 1e-9
