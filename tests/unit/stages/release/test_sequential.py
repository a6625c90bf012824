"""The sequential tests keep their error rates, however often one looks: by exact arithmetic where that is possible, else by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.release.sequential import evidence_above, evidence_below

LIMITS = st.floats(0.005, 0.7)


def exact_crossing(test, *, share, limit, passes, trials):
    """Probability that a test passes its threshold at one of the first trials, looked at after each, by dynamic programming."""
    alive, crossed = np.array([1.0]), 0.0
    for done in range(1, trials + 1):
        alive = np.append(alive * (1 - share), 0.0) + np.append(0.0, alive * share)
        over = np.array([test(hits, trials=done, limit=limit) >= passes for hits in range(done + 1)])
        crossed += alive[over].sum()
        alive = np.where(over, 0.0, alive)
    return float(crossed)


@pytest.mark.parametrize(("limit", "trials"), [(0.05, 200), (0.2, 100), (0.5, 100)])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_at_the_limit_itself_a_test_errs_at_most_as_often_as_declared_and_is_not_idle(limit, trials, rate):
    passes = math.log(1 / rate)
    for test in (evidence_above, evidence_below):
        found = exact_crossing(test, share=limit, limit=limit, passes=passes, trials=trials)
        assert rate / 20 < found <= rate


@given(limit=LIMITS, trials=st.integers(0, 400), data=st.data())
def test_evidence_has_an_expectation_of_one_after_one_more_trial_at_the_limit(limit, trials, data):
    hits = data.draw(st.integers(0, trials))
    for test in (evidence_above, evidence_below):
        now = test(hits, trials=trials, limit=limit)
        hit, miss = (math.exp(test(hits + one, trials=trials + 1, limit=limit) - now) for one in (1, 0))
        assert limit * hit + (1 - limit) * miss == pytest.approx(1.0, rel=1e-6)
        # Within the null hypothesis it falls: a hit speaks for a share above, a miss for one below.
        assert (hit > miss) == (test is evidence_above)


@given(limit=LIMITS, trials=st.integers(1, 400), data=st.data())
def test_more_hits_are_more_evidence_above_and_less_below(limit, trials, data):
    hits = data.draw(st.integers(0, trials - 1))
    assert evidence_above(hits, trials=trials, limit=limit) < evidence_above(hits + 1, trials=trials, limit=limit)
    assert evidence_below(hits, trials=trials, limit=limit) > evidence_below(hits + 1, trials=trials, limit=limit)


def test_it_stops_early_in_both_directions():
    passes = math.log(20)
    assert evidence_above(3, trials=3, limit=0.01) > passes  # a release that always fails needs three requests
    flawless = next(n for n in range(10_000) if evidence_below(0, trials=n, limit=0.01) >= passes)
    assert flawless < 1.25 * passes / -math.log(0.99)  # no test of this error rate can do with fewer than the second factor


def test_nothing_was_seen_and_a_limit_of_one_asks_for_nothing():
    assert evidence_above(0, trials=0, limit=0.1) == pytest.approx(0) == evidence_below(0, trials=0, limit=0.1)
    assert (evidence_above(5, trials=9, limit=1.0), evidence_below(5, trials=9, limit=1.0)) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="4 hits of 3 trials"):
        evidence_above(4, trials=3, limit=0.1)
