import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.monitoring.statistics import (
    chi_squared_p_value,
    ks_distance,
    ks_p_value,
    surge_p_value,
    total_variation,
)

counts = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12).map(lambda rows: tuple(np.array(rows).T)).filter(
    lambda pair: pair[0].sum() > 0 and pair[1].sum() > 0
)  # fmt: skip


values = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=60).map(lambda found: np.sort(np.array(found)))


@given(counts, values)
def test_a_sample_against_itself_is_nil(pair, sample):
    assert total_variation(pair[0], pair[0]) == 0.0
    assert total_variation(pair[0], pair[0] * 3) == pytest.approx(0.0, abs=1e-12)
    assert chi_squared_p_value(pair[0], pair[0]) == pytest.approx(1.0)
    assert ks_distance(sample, np.repeat(sample, 3)) == pytest.approx(0.0, abs=1e-12)


@given(counts, values, values)
def test_distances_are_symmetric_and_within_their_bounds(pair, one, other):
    assert total_variation(*pair) == pytest.approx(total_variation(*pair[::-1]))
    assert 0.0 <= total_variation(*pair) <= 1.0
    assert ks_distance(one, other) == ks_distance(other, one)
    assert 0.0 <= ks_distance(one, other) <= 1.0


@given(values, values)
def test_the_ks_distance_is_scipys(one, other):
    from scipy.stats import ks_2samp

    assert ks_distance(one, other) == pytest.approx(ks_2samp(one, other, method="asymp").statistic)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200), st.integers(1, 200))
def test_a_surge_is_as_unlikely_as_fisher_says(count, before, more, more_before):
    from scipy.stats import fisher_exact

    rows, before_rows = count + more + 1, before + more_before
    found = surge_p_value(count, rows, before=before, before_rows=before_rows)
    if count * before_rows <= before * rows:
        assert found == 1.0
    else:
        exact = fisher_exact([[count, rows - count], [before, before_rows - before]], alternative="greater").pvalue
        assert found == pytest.approx(exact, rel=1e-6)


@given(counts)
def test_p_values_are_probabilities(pair):
    assert 0.0 <= chi_squared_p_value(*pair) <= 1.0
    assert 0.0 <= ks_p_value(total_variation(*pair), reference_rows=int(pair[0].sum()), current_rows=int(pair[1].sum())) <= 1.0


def test_samples_without_a_common_value_are_as_far_apart_as_can_be():
    assert total_variation(np.array([5, 0]), np.array([0, 7])) == 1.0
    assert ks_distance(np.array([1.0, 2.0]), np.array([3.0])) == 1.0


def test_the_ks_p_value_agrees_with_scipy():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(7)
    for shift in (0.0, 0.05, 0.1, 0.2):
        one, other = rng.normal(size=2000), rng.normal(shift, size=900)
        peer = ks_2samp(one, other, method="asymp")
        assert ks_p_value(peer.statistic, reference_rows=2000, current_rows=900) == pytest.approx(peer.pvalue, rel=0.15, abs=1e-6)


def test_the_chi_squared_p_value_agrees_with_scipy_when_no_cell_is_rare():
    from scipy.stats import chi2_contingency

    table = np.array([[120, 90, 40], [100, 110, 45]])
    assert chi_squared_p_value(*table) == pytest.approx(chi2_contingency(table, correction=False).pvalue)
