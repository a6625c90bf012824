"""The regulator's report of one model: sections as plain values from an account, and the page that shows them. Nothing is read here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.measures import METRICS
from platform_assets.stages.governance.findings import (
    HANDS,
    INCIDENTS,
    find_evidence,
    hold_against_clauses,
    of_action,
    personal_columns,
    privacy_sentence,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from platform_assets.specs.account import Account, AuditEntry, ReleaseAccount

STATEMENT = (
    "This report is made from the lineage and the audit log of the platform alone. It lists evidence; it is no certificate, no legal "
    "advice and no declaration of conformity. Where it says 'no evidence', nothing in lineage or log shows the clause. What is listed as a "
    "duty stays with the organisation whatever the evidence."
)
_TEMPLATE = "audit_report.html.j2"


def build_report(account: Account) -> dict[str, Any]:
    """Return the whole report as values that JSON can hold."""
    evidence = find_evidence(account)
    return {
        "model": account.model, "from": account.since, "to": account.until, "statement": STATEMENT,
        "log": {"length": account.log_length, "verified": True},
        "purpose": _purpose(account), "data": _data(account), "protection": _protection(account),
        "training": [_training(one) for one in account.releases if one.declaration], "cost": list(account.cost),
        "metrics": [_metrics(one) for one in account.releases if one.declaration],
        "candidates": [_candidates(one) for one in account.releases if one.declaration],
        "versions": _versions(account), "drift": _drift(account),
        "incidents": [_entry(entry) for entry in of_action(account, *INCIDENTS)],
        "approvals": [_entry(entry) for entry in account.entries if entry["action"] in HANDS or "approv" in entry["action"]],
        "subjects": [_entry(entry) for entry in of_action(account, "erasure", "subject_exported", "retention")],
        "evidence": evidence, "clauses": hold_against_clauses(evidence),
    }  # fmt: skip


def draw_page(report: Mapping[str, Any]) -> str:
    """Return the report as one HTML page that needs nothing beside it; every value is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["figure"] = _figure
    return environment.get_template(_TEMPLATE).render(report=report, laws=_by_law(report))


def _purpose(account: Account) -> dict[str, Any]:
    names = ("purpose", "owner", "tenant", "target")
    return {**{name: account.declared.get(name) for name in names}, "governance": account.declared.get("governance", {})}


def _data(account: Account) -> dict[str, Any]:
    dataset = account.dataset
    pins = {}
    for release in account.releases:
        if release.lineage:
            pins[release.version] = [release.lineage["dataset"], *release.lineage["views"].values()]
    return {
        "dataset": dataset.get("name"), "owner": dataset.get("owner"), "description": dataset.get("description"),
        "source": dataset.get("source", {}).get("kind"), "residency": dataset.get("residency"), "retention": dataset.get("retention"),
        "columns": len(dataset.get("columns", {})), "way": list(account.way), "places": list(account.places),
        "transfers": list(dataset.get("transfers") or ()), "learnt_from": pins,
    }  # fmt: skip


def _protection(account: Account) -> dict[str, Any]:
    applied = account.notes.get("protected", {}).get("protected_columns") or {}
    columns = [
        {"column": name, "declared": method, "applied": applied.get(name, "no evidence")}
        for name, method in personal_columns(account.dataset).items()
    ]
    return {
        "columns": columns, "anonymity": account.notes.get("protected", {}).get("anonymity"),
        "encrypted_columns": account.notes.get("ingested", {}).get("encrypted_columns"),
        "hunt": account.notes.get("validated", {}).get("hunt"),
    }  # fmt: skip


def _training(release: ReleaseAccount) -> dict[str, Any]:
    declared = release.declaration["model"]["training"]
    return {
        "version": release.version, "training": release.lineage["training"], "training_set": release.lineage["training_set"],
        "commit": release.lineage["commit"], "architecture": declared["architecture"], "epochs": declared["epochs"],
        "seed": declared["seed"], "warm_start": release.lineage["warm_start"], "privacy": privacy_sentence(release),
    }  # fmt: skip


def _metrics(release: ReleaseAccount) -> dict[str, Any]:
    lead = METRICS[release.declaration["model"]["target"]["kind"]][0]
    return {
        "version": release.version, "leading": lead, "holdout": release.metrics["holdout"], "teacher": release.metrics["teacher"],
        "baseline": release.metrics["baseline"], "gates": release.metrics["gates"]["bounds"], "groups": list(release.groups),
    }  # fmt: skip


def _candidates(release: ReleaseAccount) -> dict[str, Any]:
    selection = release.candidates["selection"]
    lead = METRICS[release.declaration["model"]["target"]["kind"]][0]
    against = {one["name"]: one["why"] for one in [*selection["rejected"], *release.candidates["not_made"]]}
    chosen = selection["chosen"]
    limits = release.declaration["model"]["compression"]
    measured = selection.get("candidates") or [chosen]
    rows = [
        {
            "name": one["name"], "metric": one["metrics"][lead], "drop": one["drop"], "size_bytes": one["size_bytes"],
            "cpu_us_b1": one["cpu_us_b1"], "latency_ms_p99": one["latency_ms_p99"], "chosen": one["name"] == chosen["name"],
            "why": "" if one["name"] == chosen["name"] else against.get(one["name"], ""),
        }
        for one in sorted(measured, key=lambda one: one["cpu_us_b1"])
    ]  # fmt: skip
    names = {row["name"] for row in rows}
    why = (
        f"{chosen['name']} costs the least CPU a row ({chosen['cpu_us_b1']:.0f} us) among those that lose at most "
        f"{limits['tolerate_drop']:g} {lead} with their standard error and answer within {limits['latency_ms_p99']:g} ms at p99"
    )
    not_made = [{"name": name, "why": text} for name, text in against.items() if name not in names]
    return {"version": release.version, "leading": lead, "chosen": chosen["name"], "why": why, "measured": rows, "not_made": not_made}


def _versions(account: Account) -> list[dict[str, Any]]:
    """Every decision on what is live, the one that was in force at the start first; `until` is when the next one changed it."""
    made = [entry for entry in of_action(account, "rollout", "rollback") if entry["detail"].get("live")]
    decisions = [*([account.before] if account.before else []), *made]
    rows: list[dict[str, Any]] = []
    for entry in decisions:
        live = entry["detail"]["live"]
        if rows and rows[-1]["live"] != live[:12]:
            rows[-1]["until"] = entry["at"]
        why = entry["detail"].get("why") or f"{entry['action']} from {str(entry['detail'].get('before'))[:12]}"
        rows.append({
            "live": live[:12], "since": entry["at"], "until": "", "decision": entry["action"], "by": entry["actor"], "why": why,
            "entry": entry["seq"], "trigger": _trigger(account, entry),
        })  # fmt: skip
    return rows


def _trigger(account: Account, decision: AuditEntry) -> str:
    """Say what asked for the retraining that a decision ended, "" where none was asked for."""
    asked = [entry for entry in of_action(account, "retraining") if entry["seq"] < decision["seq"]]
    earlier = [entry["seq"] for entry in of_action(account, "rollout") if entry["seq"] < decision["seq"]]
    newest = asked[-1] if asked and decision["action"] == "rollout" else None
    if newest is None or (earlier and newest["seq"] < earlier[-1]):
        return ""
    return f"{newest['detail']['trigger']}: {newest['detail']['why']} (log: {newest['seq']})"


def _drift(account: Account) -> dict[str, Any]:
    verdicts = [_entry(entry) for entry in of_action(account, "retraining", "retraining_outcome", "retraining_wanted")]
    return {
        "windows": list(account.windows), "drifted": [window for window in account.windows if window["drifted"]],
        "performance": list(account.performance), "decisions": verdicts,
    }  # fmt: skip


def _entry(entry: AuditEntry) -> dict[str, Any]:
    detail = {name: value for name, value in entry["detail"].items() if name != "incident"}
    return {name: entry[name] for name in ("seq", "at", "action", "subject", "actor")} | {"detail": detail, "said": _say(detail)}


def _say(detail: Mapping[str, Any]) -> str:
    """Put what an entry holds into one line a person reads."""
    lead = detail.get("why") or detail.get("sentence") or detail.get("reason")
    rest = ", ".join(
        f"{name} {_short(value)}" for name, value in detail.items() if name in ("outcome", "trigger", "live", "before", "counts")
    )
    return "; ".join(text for text in (str(lead) if lead else "", rest) if text) or ", ".join(f"{n} {_short(v)}" for n, v in detail.items())


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 and " " not in text else text  # noqa: PLR2004 - a digest


def _by_law(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    laws: dict[str, list[dict[str, Any]]] = {}
    for row in report["clauses"]:
        laws.setdefault(row["law"], []).append(row)
    return laws


def _figure(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"  # noqa: PLR2004 - metrics need four places, seconds one
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
