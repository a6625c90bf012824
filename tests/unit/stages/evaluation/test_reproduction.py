"""What is asked of a training made again: every bit under the same conditions, the metric within the tolerance elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from platform_assets.networks.comparison import WeightsCompared
from platform_assets.networks.conditions import Conditions
from platform_assets.stages.evaluation.reproduction import judge_reproduction

HERE = Conditions(processor="Zen", instructions="AVX2", accelerator="cpu", torch="2.13.0", threads=2)
GPU = replace(HERE, accelerator="NVIDIA H200")
EQUAL, UNEQUAL = WeightsCompared(100, 0, 0.0, ()), WeightsCompared(100, 3, 1e-7, ("weight",))


def judge(weights, *, recorded=(HERE,), again=HERE, before=0.8, after=0.8):
    return judge_reproduction(weights, recorded=recorded, again=again, metric="auroc", before=before, after=after, tolerance=0.005)


def test_equal_weights_are_equal_wherever_they_were_computed():
    assert judge(EQUAL, recorded=(), after=0.1).outcome == "equal"


def test_one_bit_is_too_much_under_the_same_conditions_however_good_the_metric():
    found = judge(UNEQUAL)
    assert found.outcome == "different"
    assert found.sentence == "3 of 100 weights differ, by at most 1e-07, although Zen with 2 threads computed both"


@pytest.mark.parametrize(
    ("recorded", "again", "why"),
    [
        ((replace(HERE, threads=1),), HERE, "threads 1 first, 2 then"),
        (
            (replace(HERE, processor="Ice Lake", torch="2.14.0"),),
            HERE,
            "processor Ice Lake first, Zen then, torch 2.14.0 first, 2.13.0 then",
        ),
        (
            (HERE, replace(HERE, micro_batches=2)),
            replace(HERE, micro_batches=2),
            "own conditions changed underway: micro_batches 1 first, 2 then",
        ),
        ((GPU,), GPU, "sums on NVIDIA H200 have no fixed order"),
        ((), HERE, "was not noted"),
    ],
)
def test_elsewhere_the_metric_decides_and_the_sentence_says_what_was_other(recorded, again, why):
    assert judge(UNEQUAL, recorded=recorded, again=again, after=0.804).outcome == "within_tolerance"
    found = judge(UNEQUAL, recorded=recorded, again=again, after=0.794)
    assert found.outcome == "different"
    assert why in found.sentence
    assert "auroc 0.8000 was recorded, 0.7940 was found: more than 0.005 apart (training.tolerance)" in found.sentence
