from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.model import PayoffSpec
from platform_assets.stages.retraining.payoff import Attempt, Labelled, Situation, choose, expect_gain

SPEC = PayoffSpec()
NOW = Situation(window=10, elapsed=5, age=5, labelled=(Labelled(9, 0.5, 0.01), Labelled(10, 0.5, 0.01)), unit=1.0, spent=0.0)


def attempts(gain, how="retrain", count=6):
    return [Attempt(how, window, 5, 1.0 if how == "retrain" else 0.02, gain) for window in range(count)]


def test_a_retraining_that_is_expected_to_win_and_can_be_paid_is_chosen():
    assert choose(NOW, ledger=attempts(0.2), spec=SPEC).how == "retrain"


def test_retrainings_that_never_helped_are_not_chosen_again():
    assert choose(NOW, ledger=attempts(-0.05), spec=SPEC).how == "refresh"


def test_a_spent_budget_leaves_the_cheaper_way():
    allowed = SPEC.budget * (NOW.elapsed + 1 + SPEC.credit_windows)
    choice = choose(replace(NOW, spent=allowed - 0.5), ledger=[*attempts(0.2), *attempts(0.05, "refresh")], spec=SPEC)
    assert choice.how == "refresh"
    assert "are spent" in choice.sentence
    assert choose(replace(NOW, spent=allowed), ledger=[*attempts(0.2), *attempts(0.05, "refresh")], spec=SPEC).how == "keep"


def test_a_risen_loss_asks_at_once_where_ageing_alone_would_not():
    calm = attempts(-0.05)
    risen = replace(NOW, labelled=(Labelled(9, 0.4, 0.01), Labelled(10, 0.6, 0.01)))
    gain, why = expect_gain(risen, calm)
    assert gain == pytest.approx(1 / 3)
    assert "risen by 33%" in why
    assert choose(risen, ledger=calm, spec=SPEC).how == "retrain"


def test_a_rise_within_luck_counts_for_nothing():
    noisy = replace(NOW, labelled=(Labelled(9, 0.4, 0.1), Labelled(10, 0.6, 0.1)))
    assert expect_gain(noisy, attempts(-0.05))[0] == 0


def test_refreshes_that_do_not_help_are_tried_less_and_less_often():
    useless = [*attempts(-0.01), *attempts(-0.2, "refresh")]
    after = [choose(replace(NOW, window=5 + later), ledger=useless, spec=SPEC).how for later in (1, 2, 3, 4)]
    assert after == ["keep", "keep", "keep", "refresh"]


@given(
    gains=st.lists(st.floats(-2, 2), max_size=12),
    age=st.integers(1, 500),
    elapsed=st.integers(0, 500),
    spent=st.floats(0, 200),
    rise=st.floats(0, 5),
)
def test_no_choice_is_made_that_the_budget_does_not_cover(gains, age, elapsed, spent, rise):
    now = replace(NOW, age=age, elapsed=elapsed, spent=spent, labelled=(Labelled(1, 1.0, 0.01), Labelled(2, 1.0 + rise, 0.01)))
    ledger = [Attempt("retrain" if place % 2 else "refresh", place, 3, 1.0 if place % 2 else 0.1, gain) for place, gain in enumerate(gains)]
    choice = choose(now, ledger=ledger, spec=SPEC)
    assert choice.how == "keep" or spent + choice.expected_cost <= SPEC.budget * (elapsed + 1 + SPEC.credit_windows) * (
        1 + 1e-9
    )  # rounding
    assert choice == choose(now, ledger=ledger, spec=SPEC)
