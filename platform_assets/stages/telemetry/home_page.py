"""What stands still or runs, what was spent and what is on record in a home, in Prometheus' text format for node_exporter's collector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# Names and units are a promise to dashboards and alerting rules: add, never rename.
HELP = {
    "falaj_home_updated_timestamp_seconds": "When these figures were taken.",
    "falaj_runs": "Runs that have not ended, by model and state.",
    "falaj_runs_oldest_seconds": "How long the oldest of them has been asked for.",
    "falaj_run_deadline_seconds": "Declared: a run of the model must have ended this long after it was asked for.",
    "falaj_events_waiting": "Events of the inbox that nobody has answered for.",
    "falaj_events_dead": "Dead letters of the inbox.",
    "falaj_spent_aed": "Dirhams spent in this calendar month (UTC).",
    "falaj_promised_aed": "Dirhams promised to admitted runs beyond what they have spent.",
    "falaj_budget_aed": "Dirhams a month that the tenant declares.",
    "falaj_audit_entries": "Entries of the audit log.",
    "falaj_audit_newest_timestamp_seconds": "When the newest of them was written.",
}
Row = tuple[str, Mapping[str, str], float]


@dataclass(frozen=True)
class HomeFigures:
    """Figures of one home at `at` (epoch seconds). Money in AED by (tenant, model); `runs`: how many, age of the oldest in seconds."""

    at: float
    runs: Mapping[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    deadlines: Mapping[str, float] = field(default_factory=dict)
    events_waiting: int = 0
    events_dead: int = 0
    spent: Mapping[tuple[str, str], float] = field(default_factory=dict)
    promised: Mapping[tuple[str, str], float] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)
    audit_entries: int = 0
    audit_newest: float | None = None


def render_home(figures: HomeFigures) -> str:
    """Write the figures as gauges; what is not known is left out."""
    by_name: dict[str, list[str]] = {}
    for name, labels, value in _rows(figures):
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        by_name.setdefault(name, []).append(f"{name}{{{pairs}}} {float(value)!r}" if pairs else f"{name} {float(value)!r}")
    return "".join(f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n" + "\n".join(lines) + "\n" for name, lines in by_name.items())


def _rows(figures: HomeFigures) -> Iterator[Row]:
    yield "falaj_home_updated_timestamp_seconds", {}, figures.at
    for (model, state), (count, _) in figures.runs.items():
        yield "falaj_runs", {"model": model, "state": state}, count
    for (model, state), (_, age) in figures.runs.items():
        yield "falaj_runs_oldest_seconds", {"model": model, "state": state}, age
    for model, seconds in figures.deadlines.items():
        yield "falaj_run_deadline_seconds", {"model": model}, seconds
    yield "falaj_events_waiting", {}, figures.events_waiting
    yield "falaj_events_dead", {}, figures.events_dead
    for name, money in (("falaj_spent_aed", figures.spent), ("falaj_promised_aed", figures.promised)):
        for (tenant, model), aed in money.items():
            yield name, {"tenant": tenant, "model": model}, aed
    for tenant, aed in figures.budgets.items():
        yield "falaj_budget_aed", {"tenant": tenant}, aed
    yield "falaj_audit_entries", {}, figures.audit_entries
    if figures.audit_newest is not None:
        yield "falaj_audit_newest_timestamp_seconds", {}, figures.audit_newest


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
