import pytest

from platform_assets.errors import ReleaseError
from platform_assets.stages.release.gates import judge

FOUND = {"auroc": 0.9, "log_loss": 0.4}


def hold(gates, champion=None):
    return judge(gates, found=FOUND, champion=champion, champion_version="abc" if champion else None)


def test_bounds_hold_or_break_and_the_sentence_names_the_broken():
    verdict = hold({"auroc": ">= 0.85", "log_loss": "<= 0.3"})
    assert [bound.holds for bound in verdict.bounds] == [True, False]
    assert (verdict.passed, verdict.sentence) == (False, "refused: log_loss is 0.4000, asked <= 0.3")


def test_a_bound_against_the_champion_judges_the_difference():
    gate = {"auroc_vs_champion": ">= -0.002"}
    assert hold(gate, {"auroc": 0.901}).passed
    refused = hold(gate, {"auroc": 0.95})
    assert not refused.passed
    assert refused.bounds[0].found == pytest.approx(-0.05)
    assert refused.champion == "abc"


def test_without_a_champion_such_a_bound_is_left_out_and_said_so():
    verdict = hold({"auroc": ">= 0.85", "auroc_vs_champion": ">= 0"})
    assert verdict.passed
    assert verdict.sentence == "all 1 gates hold (no champion yet: auroc_vs_champion left out)"


@pytest.mark.parametrize("gate", ["recall", "recall_vs_champion"])
def test_an_unknown_metric_is_an_error_that_lists_what_was_measured(gate):
    with pytest.raises(ReleaseError, match=r"'recall', which was not measured; measured are: auroc, log_loss"):
        hold({gate: ">= 0.1"})


def test_a_metric_that_is_no_number_is_never_waved_through():
    with pytest.raises(ReleaseError, match="auroc is nan"):
        judge({"auroc": "<= 0.9"}, found={"auroc": float("nan")}, champion=None, champion_version=None)
