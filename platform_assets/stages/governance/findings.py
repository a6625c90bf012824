"""What in an account is evidence: one pure function a finding, which says in a sentence what was found, or "" for nothing.

A declaration alone is never evidence of an act: what was declared is said to be declared, what was done is counted from lineage and log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from platform_assets.specs.account import Account, AuditEntry, ReleaseAccount
from platform_assets.specs.guarantee import Guarantee
from platform_assets.specs.record_json import from_mapping
from platform_assets.stages.governance.clauses import CLAUSES

NO_EVIDENCE = "no evidence"
INCIDENTS = (
    "release_refused", "denied", "event_refused", "refuse", "placement_refused", "run_failed", "personal_data_found", "login_refused",
    "locked_out",
)  # fmt: skip
HANDS = ("approve", "approval", "release_approved", "rollback", "retraining_wanted", "acknowledged")  # what persons did to a running system
_GOOD = ("release", "release_sealed")


def of_action(account: Account, *actions: str) -> list[AuditEntry]:
    """Return entries of these actions, in order."""
    return [entry for entry in account.entries if entry["action"] in actions]


def personal_columns(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return declared personal columns and what is done with them."""
    return {name: column["personal"]["method"] for name, column in dataset.get("columns", {}).items() if column.get("personal")}


def _purpose(account: Account) -> str:
    return f"declared: {account.declared['purpose']}" if account.declared.get("purpose") else ""


def _data(account: Account) -> str:
    pins = {(r.lineage["dataset"]["table"], r.lineage["dataset"]["version"]) for r in account.releases if r.lineage}
    named = ", ".join(f"{table} version {version}" for table, version in sorted(pins))
    return f"{len(pins)} pinned versions were learnt from: {named}" if pins else ""


def _minimisation(account: Account) -> str:
    columns, dropped = account.dataset.get("columns", {}), [n for n, m in personal_columns(account.dataset).items() if m == "drop"]
    if not columns:
        return ""
    return f"{len(columns)} declared columns alone are ingested" + (f", no feature is made of {', '.join(dropped)}" if dropped else "")


def _protection(account: Account) -> str:
    made = account.notes.get("protected", {}).get("protected_columns")
    said = [f"applied: {', '.join(f'{name} by {how}' for name, how in sorted(made.items()))}"] if made else []
    private = [
        f"{release.version} was trained with differential privacy: {told}"
        for release in account.releases
        if (told := privacy_sentence(release))
    ]
    return "; ".join([*said, *private])


def privacy_sentence(release: ReleaseAccount) -> str | None:
    """Say what the training of a release guarantees, as its lineage has it; None where it was not private."""
    found = release.lineage.get("privacy") if release.lineage else None
    return from_mapping(Guarantee, found).sentence if found else None


def _anonymity(account: Account) -> str:
    found = account.notes.get("protected", {}).get("anonymity")
    return str(found["sentence"]) if found and found.get("sentence") else ""


def _quality(account: Account) -> str:
    found = account.notes.get("validated", {}).get("checks")
    return f"{found['passed']} of {found['held']} checks of the contract held when last asked" if found else ""


def _residency(account: Account) -> str:
    if not account.way:
        return ""
    steps, kept = ({row["jurisdiction"] for row in rows} for rows in (account.way, account.places))
    basis = account.dataset.get("transfers") or ()
    told = "; ".join(f"to {one['to']} on {one['basis']} from {one['since']} until {one.get('until') or 'it is withdrawn'}" for one in basis)
    refused = of_action(account, "placement_refused")
    return "".join((
        f"{len(account.way)} steps from source to report stand in {', '.join(sorted(steps))}",
        f", and what they leave in {len(account.places)} places in {', '.join(sorted(kept))}" if kept else "",
        f"; transfer {told}" if told else "",
        f"; {len(refused)} placements refused{_entries(refused)}" if refused else "",
    ))  # fmt: skip


def _training(account: Account) -> str:
    trained = [row for row in account.cost if row["stage"] in ("model/trained", "model/sweep")]
    runs, seconds = sum(row["runs"] for row in trained), sum(row["wall_seconds"] for row in trained)
    return f"{runs} trainings in the ledger, {seconds:,.0f} s, {sum(row['price_aed'] for row in trained):.4f} AED" if runs else ""


def _metrics(account: Account) -> str:
    told = [f"{r.version}: {', '.join(f'{n} {v:.4f}' for n, v in r.metrics['holdout'].items())}" for r in account.releases if r.metrics]
    return "on the holdout, " + "; ".join(told) if told else ""


def _groups(account: Account) -> str:
    newest = next((r for r in reversed(account.releases) if r.groups), None)
    if newest is None:
        return ""
    columns = sorted({row["column"] for row in newest.groups})
    return f"{newest.version} measured in {len(newest.groups)} groups of {', '.join(columns)}"


def _candidates(account: Account) -> str:
    chosen = [r.candidates["selection"]["chosen"]["name"] for r in account.releases if r.candidates]
    return f"every candidate with its figures and the reason against it; chosen: {', '.join(chosen)}" if chosen else ""


def _gates(account: Account) -> str:
    gates = of_action(account, "gate")
    passed = sum(bool(entry["detail"].get("passed")) for entry in gates)
    return f"{len(gates)} gates judged, {passed} passed" + _entries(gates) if gates else ""


def _rollout(account: Account) -> str:
    made = of_action(account, "rollout")
    counts = Counter(entry["detail"].get("outcome", "?").replace("_", " ") for entry in made)
    return f"{len(made)} rollouts: {_say(counts)}" + _entries(made) if made else ""


def _versions(account: Account) -> str:
    made = of_action(account, "rollout", "rollback")
    return (
        f"{len(account.releases)} versions were live, {len(made)} decisions changed or kept them" + _entries(made)
        if account.releases
        else ""
    )


def _log(account: Account) -> str:
    return f"{account.log_length} entries, hash-chained and signed, verified for this report" if account.log_length else ""


def _integrity(account: Account) -> str:
    whole = [release for release in account.releases if not release.refused]
    if not whole:
        return ""
    return f"signature and every byte of {len(whole)} of {len(account.releases)} releases verified for this report"


def _encryption(account: Account) -> str:
    sealed, rotated = of_action(account, *_GOOD), of_action(account, "keys_rotated")
    keyed = {key for entry in sealed for key in entry["detail"].get("keys", ())}
    told = [f"releases encrypted under keys {', '.join(sorted(keyed))}"] if keyed else []
    told += [f"{len(rotated)} rotations of keys"] if rotated else []
    columns = account.notes.get("ingested", {}).get("encrypted_columns")
    told += [f"at rest encrypted: {', '.join(columns)}"] if columns else []
    return "; ".join(told)


def _retention(account: Account) -> str:
    done = of_action(account, "retention")
    rows = sum(int(entry["detail"].get("rows", 0)) for entry in done)
    return f"{len(done)} times enforced, {rows} rows removed" + _entries(done) if done else ""


def _erasure(account: Account) -> str:
    done = of_action(account, "erasure")
    return f"{len(done)} erasures done and proven by search" + _entries(done) if done else ""


def _access(account: Account) -> str:
    done = of_action(account, "subject_exported")
    return f"{len(done)} access requests answered" + _entries(done) if done else ""


def _drift(account: Account) -> str:
    drifted = sum(bool(window["drifted"]) for window in account.windows)
    return f"{len(account.windows)} windows of production judged, {drifted} drifted" if account.windows else ""


def _incidents(account: Account) -> str:
    found = of_action(account, *INCIDENTS)
    return f"{len(found)} in the log: {_say(Counter(e['action'].replace('_', ' ') for e in found))}" + _entries(found) if found else ""


def _approvals(account: Account) -> str:
    found = [entry for entry in account.entries if "approv" in entry["action"]]
    return f"{len(found)} approvals by persons" + _entries(found) if found else ""


def _oversight(account: Account) -> str:
    found = of_action(account, *HANDS)
    return (
        f"persons stepped in {len(found)} times: {_say(Counter(e['action'].replace('_', ' ') for e in found))}" + _entries(found)
        if found
        else ""
    )


def _reasons(account: Account) -> str:
    able = [release.version for release in account.releases if "typical_row.json" in release.files]
    return f"each answer of {', '.join(able)} can be explained by feature contributions" if able else ""


def _denials(account: Account) -> str:
    found = of_action(account, "denied", "login_refused", "locked_out")
    return f"{len(found)} entries of callers turned away" + _entries(found) if found else ""


def _actors(account: Account) -> str:
    actors = sorted({str(entry["actor"]) for entry in of_action(account, "launch", "rollback", "approve", "approval", "release_exported")})
    return f"every launch names who asked: {', '.join(actors[:8])}{' and others' if len(actors) > 8 else ''}" if actors else ""  # noqa: PLR2004 - a line


def _components(account: Account) -> str:
    able = [release.version for release in account.releases if "sbom.cdx.json" in release.files]
    return f"{', '.join(able)} carry a CycloneDX bill of materials" if able else ""


FINDINGS: dict[str, Callable[[Account], str]] = {
    "purpose": _purpose, "data": _data, "minimisation": _minimisation, "protection": _protection, "anonymity": _anonymity,
    "quality": _quality, "residency": _residency, "training": _training, "metrics": _metrics, "groups": _groups,
    "candidates": _candidates, "gates": _gates, "rollout": _rollout, "versions": _versions, "log": _log, "integrity": _integrity,
    "encryption": _encryption, "retention": _retention, "erasure": _erasure, "access": _access, "drift": _drift, "incidents": _incidents,
    "approvals": _approvals, "oversight": _oversight, "reasons": _reasons, "denials": _denials, "actors": _actors,
    "components": _components,
}  # fmt: skip


def find_evidence(account: Account) -> dict[str, str]:
    """Return every finding's sentence; those without any are left out."""
    return {name: sentence for name, find in FINDINGS.items() if (sentence := find(account))}


def hold_against_clauses(evidence: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each clause with the evidence for it, or the words "no evidence", and the duty that stays."""
    rows = []
    for clause in CLAUSES:
        found = [evidence[name] for name in clause.shown_by if name in evidence]
        missing = [name for name in clause.shown_by if name not in evidence]
        rows.append({
            "law": clause.law, "clause": clause.clause, "asks": clause.asks, "evidence": found or [NO_EVIDENCE], "not_shown": missing,
            "duty": clause.duty,
        })  # fmt: skip
    return rows


def _say(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _entries(entries: Sequence[AuditEntry]) -> str:
    shown = ", ".join(str(entry["seq"]) for entry in entries[:6])
    return f" (log: {shown}{' ...' if len(entries) > 6 else ''})"  # noqa: PLR2004 - a line
