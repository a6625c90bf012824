"""Admission over one home: declarations and ledger in, a verdict and a promise out. How Dagster holds a run is in dagster_instance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from platform_assets.specs.spending import NOBODY, Entry, Month, Payer, Spending, Verdict
from platform_assets.stages.admission.budget import Account, Budgets, open_accounts, share_of, shrink
from platform_assets.stages.admission.cost import LAST_RUNS, Bill, Need, write_bill
from platform_assets.stages.admission.payer import asked_of, payer_of, run_model_of, stage_of
from platform_assets.stages.admission.urgency import queue_priority
from platform_assets.stages.admission.verdict import judge
from platform_assets.stages.governance.placing import Misplaced, find_misplaced
from platform_assets.stages.governance.residency import Breach, find_breaches

if TYPE_CHECKING:
    from platform_assets import ports
    from platform_assets.specs.catalogue import Catalogue
    from platform_assets.specs.compute import ComputeProfile
    from platform_assets.specs.places import Place

_GRACE_SECONDS = 60.0  # between a promise and the run that stands in Dagster's database
StillGoing = Callable[[Sequence[str]], Mapping[str, bool]]


@dataclass(frozen=True)
class Admission:
    """Judges runs by the assets they would make (keys of three parts)."""

    catalogue: Catalogue
    ledger: ports.Ledger
    now: Callable[[], float] = time.time
    places: Sequence[Place] = ()

    def ask(
        self,
        run_id: str,
        keys: Sequence[Sequence[str]],
        *,
        still_going: StillGoing,
        approved: bool = False,
        elsewhere: Mapping[tuple[str, ...], str] | None = None,
    ) -> Verdict:
        """Judge a run; an admitted one is promised what it is expected to cost, until it ends. An approved one is promised it anyway.

        `still_going` says which of these runs, as far as they are known, have not ended: what was promised to others is forgotten first.
        `elsewhere` names the profiles of assets that would run on another than the declared one.
        """
        month = Month.of(self.now())
        bills = self.bills(keys, elsewhere=elsewhere)
        breaches = [f"{one.sentence}." for one in self._breaches(keys, elsewhere or {})]
        self._settle(still_going)
        verdicts: list[Verdict] = []

        def decide(spending: Spending) -> dict[Payer, float] | None:
            accounts = open_accounts(bills, spending=spending, budgets=self.budgets)
            verdict = judge(bills, accounts=accounts, month=month, residency=breaches)
            verdicts.append(verdict)
            admitted = verdict.answer == "admit" or (approved and verdict.answer == "hold")
            return {payer: aed for payer, aed in verdict.expected.items() if aed > 0} if admitted else None

        self.ledger.promise(run_id, month=month, judge=decide)
        return verdicts[-1]

    def foresee(self, keys: Sequence[Sequence[str]]) -> Verdict:
        """Return what a run would be told if it asked now; nothing is promised to it."""
        month, bills = Month.of(self.now()), self.bills(keys)
        accounts = open_accounts(bills, spending=self.ledger.spending(month), budgets=self.budgets)
        return judge(bills, accounts=accounts, month=month, residency=[f"{one.sentence}." for one in self._breaches(keys, {})])

    def _breaches(self, keys: Sequence[Sequence[str]], elsewhere: Mapping[tuple[str, ...], str]) -> list[Breach | Misplaced]:
        def where(asset: Sequence[str]) -> tuple[str, ComputeProfile]:
            name = elsewhere.get(tuple(asset))
            return (name, self.catalogue.compute.profiles[name]) if name else self.catalogue.profile_of_asset(asset)

        return [*find_breaches(self.catalogue, keys, profile_of=where), *find_misplaced(self.catalogue, keys, places=self.places)]

    def bills(self, keys: Sequence[Sequence[str]], *, elsewhere: Mapping[tuple[str, ...], str] | None = None) -> list[Bill]:
        """Return what each payer's part of a run is expected to cost."""
        needs: dict[Payer, list[Need]] = {}
        run_model = run_model_of(keys, models=self.catalogue.models)
        for key in keys:
            payer = payer_of(key, models=self.catalogue.models, run_model=run_model)
            name = (elsewhere or {}).get(tuple(key)) or self.catalogue.profile_of_asset(key)[0]
            asked = asked_of(name, self.catalogue.compute.profiles[name])
            needs.setdefault(payer, []).append(Need(*payer, stage_of(key), asked))
        return [self._bill(payer, parts) for payer, parts in needs.items() if payer[0] != NOBODY]

    def _bill(self, payer: Payer, needs: list[Need]) -> Bill:
        past: list[Entry] = self.ledger.history(payer[1], last=LAST_RUNS)
        return write_bill(needs, past, max_cost_aed=self.catalogue.models[payer[1]].training.max_cost_aed)

    def _settle(self, still_going: StillGoing) -> None:
        promised = self.ledger.promised_runs()
        known = still_going(list(promised))
        for run_id, at in promised.items():
            if not known.get(run_id, at > self.now() - _GRACE_SECONDS):
                self.ledger.settle(run_id)

    @property
    def budgets(self) -> Budgets:
        """Declared budgets."""
        tenants = {name: tenant.budget for name, tenant in self.catalogue.compute.tenants.items() if tenant.budget}
        return Budgets(tenants, {name: model.budget for name, model in self.catalogue.models.items() if model.budget})

    def priority(self, keys: Sequence[Sequence[str]]) -> int:
        """Return the place in Dagster's queue of a run that is asked for now."""
        names = {key[1] for key in keys if key[0] == "model"} & set(self.catalogue.models)
        return queue_priority(self.now(), slas=[self.catalogue.models[name].sla for name in sorted(names)])

    def shrink(self, model: str, count: int) -> tuple[int, str]:
        """Return how many of the trials or replicas that a model asks for may run now, and why, in one sentence."""
        accounts = self._accounts_of(model)
        allowed = shrink(count, share=share_of(accounts))
        if allowed == count:
            return count, f"All {count} may run."
        tightest = min(accounts, key=lambda account: account.share)
        taken, limit = tightest.taken, tightest.budget.aed_per_month
        return allowed, f"{allowed} of {count} may run: {tightest.name} has taken {taken:,.2f} of its {limit:,.2f} AED this month."

    def _accounts_of(self, model: str) -> tuple[Account, ...]:
        bill = Bill(self.catalogue.models[model].tenant, model, 0.0, "", free=True)
        return open_accounts([bill], spending=self.ledger.spending(Month.of(self.now())), budgets=self.budgets)

    def overview(self, month: Month) -> dict[str, Any]:
        """Return a month's spend against budget: rows by tenant and model, and by tenant, with hours; plain values."""
        spending, entries = self.ledger.spending(month), self.ledger.entries(month)
        tenants, models = self.budgets.tenants, self.budgets.models
        payers = sorted({*spending.spent, *spending.promised, *((model.tenant, name) for name, model in self.catalogue.models.items())})
        rows = [
            {"tenant": tenant, "model": model, **_figures(spending, entries, (tenant, model)), **_against(models.get(model))}
            for tenant, model in payers
        ]
        names = sorted({tenant for tenant, _ in payers if tenant != NOBODY} | set(tenants))
        sums = [{"tenant": name, **_figures(spending, entries, (name, None)), **_against(tenants.get(name))} for name in names]
        for row in (*rows, *sums):
            row["share"] = (row["spent_aed"] + row["promised_aed"]) / row["budget_aed"] if row["budget_aed"] else None
        return {"month": str(month), "currency": "AED", "models": rows, "tenants": sums}


def _figures(spending: Spending, entries: Sequence[Entry], payer: tuple[str, str | None]) -> dict[str, float | int]:
    tenant, model = payer

    def mine(other: Payer) -> bool:
        return other[0] == tenant and model in (None, other[1])

    steps = [entry for entry in entries if mine((entry.tenant, entry.model))]
    return {
        "runs": len({entry.run_id for entry in steps}),
        "cpu_seconds": round(sum(entry.cpu_seconds for entry in steps), 3),
        "gpu_seconds": round(sum(entry.gpu_seconds for entry in steps), 3),
        "spent_aed": round(sum(aed for other, aed in spending.spent.items() if mine(other)), 6),
        "promised_aed": round(sum(aed for other, aed in spending.promised.items() if mine(other)), 6),
    }


def _against(budget: Any) -> dict[str, Any]:
    return {"budget_aed": budget.aed_per_month if budget else None, "when_spent": budget.when_spent if budget else None}
