"""The operator's verbs about money: what was spent against which budget, the FOCUS export, the release of a held run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets.definitions import bind_parts
from platform_assets.errors import StateError
from platform_assets.main_job import site
from platform_assets.specs.spending import Month
from platform_assets.stages.admission.focus import write_focus
from platform_assets.stages.telemetry.rightsizing import advise_ledger
from resources.dagster_instance import gate
from resources.home import write_atomically
from resources.parts import Parts
from resources.settings import Settings, apply_to_this_process


def read_spending(settings: Settings, *, month: str | None, focus: Path | None) -> dict[str, Any]:
    """Return a month's spend against budget (this one when left out), whether profiles fit; write its entries as FOCUS CSV into `focus`."""
    parts = _open(settings)
    try:
        which = Month.parse(month) if month else Month.of(time.time())
    except ValueError as error:
        raise StateError(f"--month: {error}.") from None
    if focus is not None:
        write_atomically(focus, write_focus(parts.ledger.entries(which)).encode())
    return _overview(parts, which)


def spending_now(parts: Parts) -> dict[str, Any]:
    """Return this month's spend against budget."""
    return _overview(parts, Month.of(time.time()))


def _overview(parts: Parts, month: Month) -> dict[str, Any]:
    found = advise_ledger(parts.ledger.entries(month), profiles=parts.catalogue.compute.profiles)
    advice = [
        {"model": model, "stage": stage, "verdict": one.verdict, "profile": one.profile, "sentence": one.sentence}
        for (model, stage), one in found.items()
    ]
    return {**gate.admission_of(parts).overview(month), "right_sizing": advice}


def approve_run(settings: Settings, run_id: str, *, who: str | None) -> str:
    """Release a held run, audited; return its whole id."""
    parts = _open(settings)
    with dg.DagsterInstance.get() as instance:
        return gate.approve(instance, run_id, parts, who=who).run_id


def _open(settings: Settings) -> Parts:
    site.prepare(settings)
    apply_to_this_process(settings)
    return bind_parts(settings)
