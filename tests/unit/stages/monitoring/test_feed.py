import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.monitoring.feed import find_faults, remember_feed

ROWS = 1000


def healthy(seed, rows=ROWS, shift=0.0):
    rng = np.random.default_rng(seed)
    gaps = rng.normal(50, 10, rows)
    gaps[rng.random(rows) < 0.1] = np.nan
    return {
        "lead": rng.exponential(60, rows).round() + shift,
        "price": rng.normal(100, 20, rows) + shift,
        "gaps": gaps,
        "child": (rng.random(rows) < 0.1).astype(float),
        "country": rng.integers(0, 40, rows).astype(float),
    }


@pytest.fixture(scope="module")
def past():
    return remember_feed(healthy(1, 5 * ROWS), window_rows=ROWS, categories=["country"])


def broken(kind):
    columns = {name: values.copy() for name, values in healthy(7).items()}
    if kind == "duplicated batch":
        columns = {name: np.concatenate([values[:500], values[:500]]) for name, values in columns.items()}
    elif kind == "stuck sensor":
        columns["price"][600:] = columns["price"][600]
    elif kind == "shifted column":
        columns["lead"], columns["price"] = columns["price"], columns["lead"]
    elif kind == "unit change":
        columns["price"][:20] *= 100
    return columns


@pytest.mark.parametrize("kind", ["duplicated batch", "stuck sensor", "shifted column", "unit change"])
def test_each_kind_of_broken_feed_is_called_by_its_name(past, kind):
    faults = find_faults(past, broken(kind))
    assert faults[0].kind == kind
    assert {fault.kind for fault in faults} == {kind}


@given(seed=st.integers(100, 10_000), shift=st.floats(-40, 40))
def test_a_world_that_moves_is_no_fault(past, seed, shift):
    assert find_faults(past, healthy(seed, shift=shift)) == ()


def test_a_feed_that_always_repeats_rows_may_go_on_to():
    doubled = {name: np.repeat(values, 2) for name, values in healthy(3, 2 * ROWS).items()}
    past = remember_feed(doubled, window_rows=ROWS)
    assert find_faults(past, {name: np.repeat(values, 2) for name, values in healthy(4, 500).items()}) == ()


def test_the_order_of_columns_changes_nothing(past):
    columns = broken("stuck sensor")
    assert find_faults(past, dict(reversed(columns.items()))) == find_faults(past, columns)
