"""Admit, hold or refuse a run that asks to start, with one sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence

from platform_assets.specs.spending import CURRENCY, Month, Verdict
from platform_assets.stages.admission.budget import Account, share_of
from platform_assets.stages.admission.cost import Bill


def judge(bills: Sequence[Bill], *, accounts: Sequence[Account], month: Month, residency: Sequence[str] = ()) -> Verdict:
    """Judge one run. `residency`: why its inputs may not be where its profiles are, one sentence a violation.

    Refused: what no waiting would cure (residency, a training above its own limit) and what breaks a budget that says so.
    Held: what breaks a budget that waits for approval or the next month. A run that costs nothing breaks no budget.
    """
    share = share_of(accounts)
    dear = [bill for bill in bills if _is_too_dear(bill)]
    broken = [account for account in accounts if account.breaks] if not all(bill.free for bill in bills) else []
    expected = {(bill.tenant, bill.model): bill.aed for bill in bills}
    if residency:
        return Verdict("refuse", f"Refused: {residency[0]}", expected, share)
    if dear:
        return Verdict("refuse", _too_dear(dear[0]), expected, share)
    refusing = next((account for account in broken if account.budget.when_spent == "refuse"), None)
    if refusing is not None:
        text = f"Refused: {_over(refusing, bills, month)}; raise the budget, or ask again in {month.next}."
        return Verdict("refuse", text, expected, share)
    if broken:
        text = f"Held: {_over(broken[0], bills, month)}; `falaj approve` releases it, or a raised budget, or {month.next}."
        return Verdict("hold", text, expected, share)
    return Verdict("admit", f"Admitted: {_cost(bills)}.", expected, share)


def _is_too_dear(bill: Bill) -> bool:
    return bill.max_cost_aed is not None and bill.training_aed is not None and bill.training_aed > bill.max_cost_aed


def _too_dear(bill: Bill) -> str:
    return (
        f"Refused: training {bill.model} is expected to cost {bill.training_aed:,.2f} {CURRENCY} (the median of its last runs), more than "
        f"training.max_cost_aed allows ({bill.max_cost_aed:,.2f}); raise it, or declare less work."
    )


def _over(account: Account, bills: Sequence[Bill], month: Month) -> str:
    return (
        f"{_cost(bills)}; {account.name} has {account.spent:,.2f} spent and {account.promised:,.2f} promised "
        f"of its {account.budget.aed_per_month:,.2f} {CURRENCY} for {month}"
    )


def _cost(bills: Sequence[Bill]) -> str:
    told = [bill for bill in bills if not bill.free] or list(bills)
    if not told:
        return "nobody pays for it"
    return f"expected cost {sum(bill.aed for bill in told):,.2f} {CURRENCY} ({_basis(told)})"


def _basis(bills: Sequence[Bill]) -> str:
    return bills[0].basis if len(bills) == 1 else "; ".join(f"{bill.model}: {bill.basis}" for bill in bills)
