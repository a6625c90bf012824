import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.monitoring.statistics import (
    chi_squared_p_value,
    ks_distance,
    ks_p_value,
    population_stability_index,
    total_variation,
)

counts = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12).map(lambda rows: tuple(np.array(rows).T)).filter(
    lambda pair: pair[0].sum() > 0 and pair[1].sum() > 0
)  # fmt: skip
DISTANCES = (ks_distance, total_variation)


@given(counts)
def test_a_sample_against_itself_is_nil(pair):
    for distance in (*DISTANCES, population_stability_index):
        assert distance(pair[0], pair[0]) == 0.0
        assert distance(pair[0], pair[0] * 3) == pytest.approx(0.0, abs=1e-12)
    assert chi_squared_p_value(pair[0], pair[0]) == pytest.approx(1.0)


@given(counts)
def test_distances_are_symmetric_and_within_their_bounds(pair):
    for distance in DISTANCES:
        assert distance(*pair) == pytest.approx(distance(*pair[::-1]))
        assert 0.0 <= distance(*pair) <= 1.0
    assert population_stability_index(*pair) == pytest.approx(population_stability_index(*pair[::-1]))
    assert population_stability_index(*pair) >= 0.0
    assert ks_distance(*pair) <= total_variation(*pair) + 1e-12


@given(counts)
def test_p_values_are_probabilities(pair):
    assert 0.0 <= chi_squared_p_value(*pair) <= 1.0
    assert 0.0 <= ks_p_value(ks_distance(*pair), reference_rows=int(pair[0].sum()), current_rows=int(pair[1].sum())) <= 1.0


def test_samples_without_a_common_value_are_as_far_apart_as_can_be():
    apart = np.array([5, 0]), np.array([0, 7])
    assert [distance(*apart) for distance in DISTANCES] == [1.0, 1.0]


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
