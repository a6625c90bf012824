"""Admit, hold or refuse, in one sentence that says why and what would help."""

import pytest

from platform_assets.specs.compute import BudgetSpec
from platform_assets.specs.spending import Month
from platform_assets.stages.admission.budget import Account
from platform_assets.stages.admission.cost import Bill
from platform_assets.stages.admission.verdict import judge

NOVEMBER = Month(2026, 11)


def bill(aed: float = 5.0, **more) -> Bill:
    return Bill("t", "m", aed, "the median of its last 5 runs", **{"free": False, **more})


def account(spent: float, *, asked: float = 5.0, promised: float = 0.0, when: str = "hold", name: str = "tenant t") -> Account:
    return Account(name, BudgetSpec(aed_per_month=100, when_spent=when), spent, promised, asked)


def test_a_run_within_its_budget_is_admitted_with_what_it_is_expected_to_cost():
    verdict = judge([bill()], accounts=[account(95)], month=NOVEMBER)
    assert verdict.answer == "admit"
    assert verdict.sentence == "Admitted: expected cost 5.00 AED (the median of its last 5 runs)."
    assert verdict.expected == {("t", "m"): 5.0}
    assert verdict.share == pytest.approx(0.25)


def test_a_run_that_would_break_a_budget_is_held_until_approval_or_the_next_month():
    verdict = judge([bill()], accounts=[account(90, promised=6)], month=Month(2026, 12))
    assert verdict.answer == "hold"
    assert verdict.sentence == (
        "Held: expected cost 5.00 AED (the median of its last 5 runs); tenant t has 90.00 spent and 6.00 promised of its 100.00 AED for "
        "2026-12; `falaj approve` releases it, or a raised budget, or 2027-01."
    )


def test_a_budget_that_refuses_wins_over_one_that_holds():
    accounts = [account(99), account(99, when="refuse", name="model m")]
    verdict = judge([bill()], accounts=accounts, month=NOVEMBER)
    assert verdict.answer == "refuse"
    assert "model m has 99.00 spent" in verdict.sentence


def test_a_training_above_its_own_limit_is_refused_however_much_is_left():
    verdict = judge([bill(training_aed=50.0, max_cost_aed=40.0)], accounts=[], month=NOVEMBER)
    assert verdict.answer == "refuse"
    assert "training m is expected to cost 50.00 AED" in verdict.sentence
    assert judge([bill(training_aed=40.0, max_cost_aed=40.0)], accounts=[], month=NOVEMBER).answer == "admit"


def test_data_that_may_not_be_there_is_refused_before_money_is_spoken_of():
    verdict = judge([bill()], accounts=[account(1000)], month=NOVEMBER, residency=["dataset x may only be in AE."])
    assert (verdict.answer, verdict.sentence) == ("refuse", "Refused: dataset x may only be in AE.")


def test_what_costs_nothing_goes_on_when_the_budget_is_gone():
    assert judge([bill(0.0, free=True)], accounts=[account(150, asked=0)], month=NOVEMBER).answer == "admit"
    assert judge([bill(0.0)], accounts=[account(150, asked=0)], month=NOVEMBER).answer == "hold"


def test_a_run_that_nobody_pays_for_is_admitted():
    assert judge([], accounts=[], month=NOVEMBER).sentence == "Admitted: nobody pays for it."


def test_a_sentence_names_every_model_it_is_for():
    other = Bill("t", "n", 2.0, "there is no earlier run to judge by", free=False)
    verdict = judge([bill(), other], accounts=[], month=NOVEMBER)
    assert "expected cost 7.00 AED (m: the median of its last 5 runs; n: there is no earlier run to judge by)" in verdict.sentence
