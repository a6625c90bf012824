import numpy as np
import pytest
from drifting import drifting_table

from platform_assets.stages.replay import booster
from platform_assets.stages.replay.stream import open_stream


def answered(model, values):
    return booster.answer(model, booster.find_leaves(model, values))


@pytest.mark.parametrize("target", ["binary", "multiclass", "regression"])
def test_an_answer_is_what_the_library_answers(target):
    stream = open_stream(drifting_table("stable", rows=3000, target=target), time="at", target="y")
    model = booster.fit(*stream.rows(0, 20), kind=stream.kind, classes=len(stream.classes))
    assert answered(model, stream.values) == pytest.approx(model.trees.predict(stream.values), abs=1e-9)


@pytest.mark.parametrize("target", ["binary", "multiclass", "regression"])
def test_a_refresh_keeps_the_trees_and_learns_the_new_rows(target):
    stream = open_stream(drifting_table("abrupt", rows=6000, target=target), time="at", target="y")
    model = booster.fit(*stream.rows(0, 20), kind=stream.kind, classes=len(stream.classes))
    before = answered(model, stream.values)
    values, targets = stream.rows(40, 50)
    refreshed = booster.refresh(model, booster.find_leaves(model, values), targets, keep=0.9)
    assert np.array_equal(answered(model, stream.values), before)
    assert refreshed.trees is model.trees
    values, targets = stream.rows(50, 60)
    old, new = (booster.losses(answered(m, values), targets, kind=stream.kind).mean() for m in (model, refreshed))
    assert new < old


def test_a_leaf_that_no_row_reaches_says_what_it_said():
    stream = open_stream(drifting_table("abrupt", rows=6000), time="at", target="y")
    model = booster.fit(*stream.rows(0, 20), kind="binary", classes=2)
    leaves = booster.find_leaves(model, stream.values[:3])
    refreshed = booster.refresh(model, leaves, stream.targets[:3], keep=0.9)
    reached = np.zeros(model.leaves.shape, dtype=bool)
    np.put_along_axis(reached, leaves, True, axis=1)
    assert np.array_equal(refreshed.leaves[~reached], model.leaves[~reached])
    assert (refreshed.leaves[reached] != model.leaves[reached]).any()


def test_the_same_rows_give_the_same_model():
    stream = open_stream(drifting_table("stable", rows=3000), time="at", target="y")
    one, two = (answered(booster.fit(*stream.rows(0, 20), kind="binary", classes=2), stream.values) for _ in range(2))
    assert np.array_equal(one, two)


def test_losses_and_hits_are_those_of_the_definition():
    targets = np.array([1.0, 0.0])
    assert booster.losses(np.array([0.8, 0.8]), targets, kind="binary") == pytest.approx(-np.log([0.8, 0.2]))
    assert booster.hits(np.array([0.8, 0.8]), targets, kind="binary").tolist() == [1.0, 0.0]
    assert booster.hits(np.array([3.0, 1.0]), targets, kind="regression").tolist() == [-4.0, -1.0]
