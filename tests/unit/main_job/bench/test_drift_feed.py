import numpy as np
import pytest

from platform_assets.main_job.bench.drift_feed import FAULTS, break_feed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_put_into_a_copy_and_only_where_it_belongs(fault):
    window = np.random.default_rng(1).normal(size=(200, 4))
    before = window.copy()
    broken = break_feed(fault, window, [0, 1], rng=np.random.default_rng(2))
    assert np.array_equal(window, before)
    assert not np.array_equal(broken, window)
    if fault != "duplicated batch":
        assert np.array_equal(broken[:, 2:], window[:, 2:])


def test_a_unit_change_is_in_two_rows_of_a_hundred():
    window = np.ones((200, 2))
    assert int((break_feed("unit change", window, [0, 1], rng=np.random.default_rng(2)) == 100).sum()) == 4
