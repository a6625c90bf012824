import numpy as np
import pytest
from drifting import drifting_table

from platform_assets.stages.replay import booster
from platform_assets.stages.replay.stream import open_stream


@pytest.mark.parametrize("target", ["binary", "multiclass", "regression"])
def test_a_refresh_keeps_the_trees_and_learns_the_new_rows(target):
    stream = open_stream(drifting_table("abrupt", rows=6000, target=target), time="at", target="y")
    model = booster.fit(*stream.rows(0, 20), kind=stream.kind, classes=len(stream.classes))
    before = booster.answer(model, stream.values)
    refreshed = booster.refresh(model, *stream.rows(40, 50), keep=0.5)
    assert np.array_equal(booster.answer(model, stream.values), before)
    assert refreshed.num_trees() == model.num_trees()
    values, targets = stream.rows(50, 60)
    old, new = (booster.losses(booster.answer(m, values), targets, kind=stream.kind).mean() for m in (model, refreshed))
    assert new < old


def test_the_same_rows_give_the_same_model():
    stream = open_stream(drifting_table("stable", rows=3000), time="at", target="y")
    one, two = (booster.answer(booster.fit(*stream.rows(0, 20), kind="binary", classes=2), stream.values) for _ in range(2))
    assert np.array_equal(one, two)


def test_losses_and_hits_are_those_of_the_definition():
    targets = np.array([1.0, 0.0])
    assert booster.losses(np.array([0.8, 0.8]), targets, kind="binary") == pytest.approx(-np.log([0.8, 0.2]))
    assert booster.hits(np.array([0.8, 0.8]), targets, kind="binary").tolist() == [1.0, 0.0]
    assert booster.hits(np.array([3.0, 1.0]), targets, kind="regression").tolist() == [-4.0, -1.0]
