"""Budgets of a calendar month: what is left of them, and by how much trials and replicas shrink before anything stops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from platform_assets.specs.compute import BudgetSpec
from platform_assets.specs.spending import NOBODY, Spending
from platform_assets.stages.admission.cost import Bill

_ROUNDING = 1e-9  # sums of binary fractions: 0.1 + 0.2 is not 0.3


@dataclass(frozen=True)
class Account:
    """A tenant's or a model's month in AED: its budget, what is spent, what is promised to admitted runs, what this run asks."""

    name: str
    budget: BudgetSpec
    spent: float
    promised: float
    asked: float = 0.0

    @property
    def taken(self) -> float:
        """Spent or promised."""
        return self.spent + self.promised

    @property
    def breaks(self) -> bool:
        """Whether this run would break the budget."""
        return self.taken + self.asked > self.budget.aed_per_month + _ROUNDING

    @property
    def share(self) -> float:
        """Part of trials and replicas that may run: 1 up to `shrink_at` of the budget, from there down to nil at its end, evenly."""
        limit = self.budget.aed_per_month
        begins = limit * self.budget.shrink_at
        if self.taken <= begins:
            return 1.0
        return max(0.0, (limit - self.taken) / (limit - begins)) if limit > begins else 0.0


@dataclass(frozen=True)
class Budgets:
    """Declared budgets by tenant and by model; who is not in here has none."""

    tenants: Mapping[str, BudgetSpec]
    models: Mapping[str, BudgetSpec]


def open_accounts(bills: Iterable[Bill], *, spending: Spending, budgets: Budgets) -> tuple[Account, ...]:
    """Return the accounts that a run draws on, of tenants and of models, as far as they have budgets."""
    billed = [bill for bill in bills if bill.tenant != NOBODY]
    kinds = (("tenant", 0, budgets.tenants), ("model", 1, budgets.models))
    return tuple(
        Account(
            f"{kind} {name}",
            declared[name],
            spent=_sum(spending.spent, place, name),
            promised=_sum(spending.promised, place, name),
            asked=sum(bill.aed for bill in billed if _payer(bill)[place] == name),
        )
        for kind, place, declared in kinds
        for name in dict.fromkeys(_payer(bill)[place] for bill in billed)
        if name in declared
    )


def _payer(bill: Bill) -> tuple[str, str]:
    return bill.tenant, bill.model


def _sum(amounts: Mapping[tuple[str, str], float], place: int, name: str) -> float:
    return sum(aed for payer, aed in amounts.items() if payer[place] == name)


def share_of(accounts: Sequence[Account]) -> float:
    """Return the part of trials and replicas that every account allows."""
    return min((account.share for account in accounts), default=1.0)


def shrink(count: int, *, share: float) -> int:
    """Return how many of the asked trials or replicas may run: never more, never none, for stopping is admission's business."""
    return max(1, math.floor(count * share + _ROUNDING))
