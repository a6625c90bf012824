import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.reference import (
    SHARES,
    against_others,
    build_reference,
    hardly_passed,
    margin_of,
    shares_hardly_passed,
)

RATE = 0.0025


@pytest.mark.parametrize("limit", [hardly_passed, shares_hardly_passed])
@given(seed=st.integers(0, 99), blocks=st.integers(4, 40), place=st.integers(0, 3), times=st.floats(1, 100))
def test_a_block_is_held_against_limits_that_it_had_no_part_in(limit, seed, blocks, place, times):
    effects = np.random.default_rng(seed).lognormal(size=(blocks, 3))
    wilder = effects.copy()
    wilder[place] *= times
    before, after = (against_others(each, limit, floors=0.02) for each in (effects, wilder))
    assert np.allclose(after[place], before[place] * times)


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_a_further_block_passes_the_margin_about_as_rarely_as_declared_also_where_blocks_spread_upwards(skew):
    rng = np.random.default_rng(3)

    def draw(*size):
        logs = rng.normal(0, 0.3, size)
        return np.exp(np.where(logs > 0, (1 + skew) * logs, logs)) * 2

    passed = [np.mean(draw(200) > margin_of(draw(30), rate=RATE, layer="column")) for _ in range(200)]
    assert np.mean(passed) < 2.5 * RATE


@given(st.lists(st.floats(0, 50), min_size=6, max_size=40), st.sampled_from(["column", "quality", "joint", "together"]))
def test_a_margin_never_lowers_a_threshold_and_no_share_of_the_past_would_pass_it(ratios, layer):
    found = margin_of(np.array(ratios), rate=RATE, layer=layer)
    assert found >= 1
    if layer in SHARES:
        assert found >= max(ratios)


def test_too_few_blocks_say_nothing():
    assert margin_of(np.full(5, 9.0), rate=RATE, layer="quality") == 1


def test_one_odd_block_of_many_does_not_hide_every_later_drift():
    calm = np.exp(np.random.default_rng(1).normal(0, 0.1, 30))
    odd = np.concatenate([[40.0], calm[1:]])
    assert margin_of(odd, rate=RATE, layer="column") < 1.2 * margin_of(calm, rate=RATE, layer="column")


def test_many_columns_and_a_past_of_one_block_call_no_new_rows_odd():
    schema = FeatureSchema(tuple(Feature(f"x{place}", "numeric", "", "") for place in range(80)), "", (), "", "")
    rng = np.random.default_rng(2)

    def rows(count):
        values = rng.normal(size=(count, 80)) + rng.normal(size=(count, 1))
        return pa.table({f"x{place}": values[:, place] for place in range(80)})

    spec = MonitoringSpec(window_rows=1000)
    reference = build_reference(rows(1000), schema=schema, probabilities=None, spec=spec)
    for index in range(3):
        window = Window(index, 0, 999, ("v",))
        report = report_window(reference, rows(1000), window=window, schema=schema, probabilities=None, importance=None, spec=spec)
        assert not report.drifted, report.evidence
