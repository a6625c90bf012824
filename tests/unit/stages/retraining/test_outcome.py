"""Whether a retraining helped is measured, with its uncertainty, and in the direction of its metric."""

from __future__ import annotations

import numpy as np
import pytest

from platform_assets.stages.retraining.outcome import FEWEST_ROWS, Answers, judge_outcome


def answers(rows, *, skill, classes=2, seed=1):
    """Answers whose probability of the right class grows with `skill`; the labels follow from the seed alone."""
    labels = np.random.default_rng(0).integers(0, classes, rows)
    logits = np.random.default_rng(seed).normal(size=(rows, classes))
    logits[np.arange(rows), labels] += skill
    shares = np.exp(logits)
    return Answers(labels, shares / shares.sum(axis=1, keepdims=True))


def judged(before, after, *, rows=2000, kind="binary", least_gain=0.005):
    classes = 2 if kind == "binary" else 4
    old, new = (answers(rows, skill=skill, classes=classes, seed=seed) for skill, seed in ((before, 1), (after, 2)))
    return judge_outcome(old, new, kind=kind, least_gain=least_gain)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_better_helps_worse_does_not_and_little_on_few_rows_is_undecided(kind):
    assert judged(1.0, 1.6, kind=kind).outcome == "helped"
    assert judged(1.6, 1.0, kind=kind).outcome == "did_not_help"
    assert judged(1.0, 1.1, rows=150, kind=kind).outcome == "undecided"


def test_the_very_same_answers_did_not_help():
    same = answers(500, skill=1.0)
    found = judge_outcome(same, same, kind="binary", least_gain=0.005)
    assert (found.outcome, found.gain, found.low, found.high) == ("did_not_help", 0.0, 0.0, 0.0)


def test_a_gain_that_is_sure_but_smaller_than_asked_did_not_help():
    assert judged(1.0, 1.6, least_gain=0.5).outcome == "did_not_help"


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says():
    truth = judge_outcome(answers(50_000, skill=1.0), answers(50_000, skill=1.3, seed=2), kind="binary", least_gain=0.0).gain
    covered = 0
    for seed in range(14):
        old, new = answers(400, skill=1.0, seed=10 + seed), answers(400, skill=1.3, seed=1000 + seed)
        found = judge_outcome(old, new, kind="binary", least_gain=0.0)
        covered += found.low <= truth <= found.high
    assert covered >= 11  # 95 % of 14 is 13.3; 10 or fewer come once in a thousand


def test_too_few_rows_or_one_class_alone_cannot_be_judged():
    few = answers(FEWEST_ROWS - 1, skill=1.0)
    assert judge_outcome(few, few, kind="binary", least_gain=0.0) is None
    one = Answers(np.zeros(200, np.int64), np.tile([0.7, 0.3], (200, 1)))
    assert judge_outcome(one, one, kind="binary", least_gain=0.0) is None
    with pytest.raises(ValueError, match="99 rows answered before, 200 after"):
        judge_outcome(few, one, kind="binary", least_gain=0.0)
