"""The operator's verbs on the audit log: verify it, take a checkpoint, say what was in production at a time, report to a regulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.components.audit_account import gather_account
from platform_assets.components.audit_steps import REPORTED
from platform_assets.components.tree import load_tree
from platform_assets.errors import DataError, StateError
from platform_assets.main_job.operations import open_parts
from platform_assets.main_job.releases import decisions
from platform_assets.stages.governance.audit_report import build_report, draw_page
from resources.home import write_atomically
from resources.parts import build_parts

if TYPE_CHECKING:
    from pathlib import Path

    from resources.parts import Parts
    from resources.settings import Settings


def verify_audit(settings: Settings, *, checkpoint: Path | None) -> int:
    """Return how many entries hold; StateError names the first that does not, or says that the checkpoint does not fit."""
    audit = _open(settings).audit
    length = audit.verify()
    if checkpoint is not None:
        audit.check_checkpoint(_read_checkpoint(checkpoint))
    return length


def take_checkpoint(settings: Settings, file: Path) -> dict[str, Any]:
    """Write the log's signed head into a file and return it."""
    found = {**_open(settings).audit.checkpoint(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(file, json.dumps(found, indent=1).encode())
    return found


def read_live_at(settings: Settings, at: str) -> dict[str, Any]:
    """Return what the audit log says was live at a time, model by model, with the entry that made it so."""
    moment = _parse_time(at)
    parts = _open(settings)
    parts.audit.verify()  # an answer from a log that was changed would be none
    rows = []
    for model in sorted(parts.catalogue.models):
        before = [entry for entry in decisions(parts.audit, model) if datetime.fromisoformat(entry["at"]) <= moment]
        last = before[-1] if before else None
        rows.append({
            "model": model, "live": last["detail"]["live"] if last else None, "since": last["at"] if last else None,
            "by": last["actor"] if last else None, "entry": last["seq"] if last else None, "action": last["action"] if last else None,
        })  # fmt: skip
    return {"at": moment.isoformat(), "models": rows}


def write_report(
    settings: Settings, model: str, *, since: str | None, until: str | None, html: Path | None, json_file: Path | None
) -> dict[str, Any]:
    """Write the regulator's report of a model as a page and as JSON, each whole or not at all; return it with the files' places.

    Left out, the period begins with the log and ends now.
    """
    parts = open_parts(settings, model)
    entries = parts.audit.entries(most=1)
    begins = _parse_time(since) if since else datetime.fromisoformat(entries[0]["at"]) if entries else datetime.now(tz=UTC)
    ends = _parse_time(until) if until else datetime.now(tz=UTC)
    if begins > ends:
        raise DataError(f"--from {begins.isoformat()} is after --to {ends.isoformat()}; a period ends after it began")
    with dg.DagsterInstance.get() as instance:
        report = build_report(gather_account(parts.catalogue.models[model], parts, instance, since=begins, until=ends))
    page = html or settings.home.reports / f"audit-{model}-{begins:%Y%m%d}-{ends:%Y%m%d}.html"
    data = json_file or page.with_suffix(".json")
    write_atomically(data, json.dumps(report, indent=1).encode())
    write_atomically(page, draw_page(report).encode())
    detail = {"sha256": sha256(page.read_bytes()).hexdigest(), "from": report["from"], "to": report["to"]}
    parts.audit.append(REPORTED, subject=f"model/{model}", actor="falaj audit report", detail=detail)
    return {"report": report, "page": page, "json": data}


def _open(settings: Settings) -> Parts:
    return build_parts(settings, load_tree(settings.defs_root, settings))


def _parse_time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{text!r} is no time; write it as 2026-11-26T14:05, or with its offset, 2026-11-26T14:05+04:00") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _read_checkpoint(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
        whole = isinstance(found["length"], int) and isinstance(found["hash"], str) and bytes.fromhex(found["signature"]) is not None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{file} is no checkpoint of an audit log; `falaj audit checkpoint FILE` writes one") from error
    if not whole:
        raise StateError(f"{file} is no checkpoint of an audit log; `falaj audit checkpoint FILE` writes one")
    return dict(found)
