"""What is left of a budget, and how trials and replicas shrink before it ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.compute import BudgetSpec
from platform_assets.specs.spending import NOBODY, Spending
from platform_assets.stages.admission.budget import Account, Budgets, open_accounts, share_of, shrink
from platform_assets.stages.admission.cost import Bill

BUDGETS = Budgets({"t": BudgetSpec(aed_per_month=100)}, {"m": BudgetSpec(aed_per_month=30, when_spent="refuse")})


def bill(model: str = "m", aed: float = 5.0, tenant: str = "t") -> Bill:
    return Bill(tenant, model, aed, "the median of its last 5 runs", free=False)


def account(taken: float, *, limit: float = 100, shrink_at: float = 0.8, asked: float = 0.0) -> Account:
    return Account("model m", BudgetSpec(aed_per_month=limit, shrink_at=shrink_at), taken, 0.0, asked)


def test_a_tenants_account_holds_all_of_its_models_and_a_models_its_own():
    spending = Spending({("t", "m"): 10, ("t", "n"): 20, ("u", "o"): 40}, {("t", "n"): 3})
    tenant, model = open_accounts([bill(aed=5), bill("n", 7)], spending=spending, budgets=BUDGETS)
    assert (tenant.name, tenant.spent, tenant.promised, tenant.asked) == ("tenant t", 30, 3, 12)
    assert (model.name, model.spent, model.promised, model.asked) == ("model m", 10, 0, 5)


def test_who_has_no_budget_has_no_account():
    assert open_accounts([bill("n", tenant="u")], spending=Spending(), budgets=BUDGETS) == ()
    assert open_accounts([bill("bookings", tenant=NOBODY)], spending=Spending(), budgets=Budgets({NOBODY: BUDGETS.tenants["t"]}, {})) == ()


def test_a_budget_may_be_spent_to_the_last_fils_and_no_further():
    assert not account(90.0, asked=10.0).breaks
    assert account(90.0, asked=10.01).breaks
    assert not Account("m", BudgetSpec(aed_per_month=0.3), 0.1, 0.1, 0.1).breaks, "the sum of binary fractions is no reason"


def test_nothing_shrinks_before_shrink_at_and_all_does_from_there_on():
    assert [account(taken).share for taken in (0, 50, 80)] == [1, 1, 1]
    assert [account(taken).share for taken in (85, 90, 95, 100, 120)] == pytest.approx([0.75, 0.5, 0.25, 0, 0])
    assert [account(taken, shrink_at=1).share for taken in (99.9, 100, 100.1)] == [1, 1, 0]


@given(st.floats(0, 300), st.floats(0, 300), st.floats(0.01, 1))
def test_the_more_is_taken_the_smaller_the_share(one, other, shrink_at):
    low, high = sorted((one, other))
    assert 0 <= account(high, shrink_at=shrink_at).share <= account(low, shrink_at=shrink_at).share <= 1


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_shrinking_never_adds_and_never_leaves_nothing(count, share):
    assert 1 <= shrink(count, share=share) <= count
    assert shrink(count, share=1.0) == count


def test_the_tightest_account_decides():
    assert share_of([account(90), account(85), account(0)]) == pytest.approx(0.5)
    assert share_of([]) == 1
