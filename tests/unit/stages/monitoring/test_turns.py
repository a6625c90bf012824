"""Whose turn it is, and who is judged together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.monitoring.turns import is_due, share_out

MODELS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from(["red", "green", "blue"]), max_size=60)


@given(MODELS, st.data(), st.integers(1, 9))
def test_each_model_that_is_due_is_judged_once_among_its_tenants_own(due, data, most):
    alone = data.draw(st.sets(st.sampled_from(sorted(due)))) if due else set()
    groups = share_out(due, alone=alone | {"nobody"}, most=most)
    assert sorted(name for group in groups for name in group) == sorted(due)
    assert all(len({due[name] for name in group}) == 1 and 1 <= len(group) <= most for group in groups)
    assert all(len(group) == 1 for group in groups if alone & set(group))
    shared = [group for group in groups if not alone & set(group)]
    assert groups[: len(shared)] == shared, "those that may be slow or fail come after the others"


@given(every=st.integers(10, 90_000), asked=st.floats(0, 2e9), wait=st.floats(0, 1e6))
def test_a_turn_comes_once_a_rhythm(every, asked, wait):
    now = asked + wait
    due = is_due(every=every, asked=asked, now=now)
    assert due or wait < every
    assert not due or now // every - asked // every >= 1
    assert is_due(every=every, asked=None, now=now)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=9), st.integers(10, 3600))
def test_models_of_one_rhythm_fall_due_together_whenever_each_was_asked_for(times, every):
    now = max(times) + every
    assert all(is_due(every=every, asked=asked, now=now) for asked in times)
