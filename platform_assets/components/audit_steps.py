"""The step that makes audits regular: audit_report, the regulator's report of the declared span up to now, kept with its page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.components.audit_account import gather_account
from platform_assets.components.step import Outcome, Step
from platform_assets.components.training_steps import scratch

if TYPE_CHECKING:
    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec

REPORT_FILE, PAGE_FILE = "audit.json", "audit.html"
REPORTED = "audit_report"


@dataclass(frozen=True)
class AuditReport:
    """A report that was made: where it lies, which period it is of, how many clauses have evidence."""

    digest: str
    since: str
    until: str
    clauses: int
    shown: int


def report_audit(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Make the report of the declared span up to now; the log says that it was made, and its digest."""
    from platform_assets.stages.governance.audit_report import build_report, draw_page
    from platform_assets.stages.governance.findings import NO_EVIDENCE
    from resources.home import write_atomically

    del dataset
    until = datetime.now(tz=UTC)
    account = gather_account(model, step.parts, step.context.instance, since=until - model.governance.report_span, until=until)
    report = build_report(account)
    page = draw_page(report)
    with scratch(step) as folder:
        (folder / REPORT_FILE).write_text(json.dumps(report, indent=1))
        (folder / PAGE_FILE).write_text(page)
        digest = step.parts.artefacts.put(folder)
    place = step.parts.settings.home.reports / f"audit-{model.name}.html"
    write_atomically(place, page.encode())
    shown = sum(row["evidence"] != [NO_EVIDENCE] for row in report["clauses"])
    record = AuditReport(digest, report["from"], report["to"], len(report["clauses"]), shown)
    step.parts.audit.append(
        REPORTED, subject=f"model/{model.name}", actor=f"run/{step.context.run.run_id}",
        detail={"digest": digest, "from": record.since, "to": record.until, "clauses": record.clauses, "with_evidence": shown},
    )  # fmt: skip
    metadata = {
        "from": record.since, "to": record.until, "clauses": record.clauses, "with_evidence": shown, "digest": digest,
        "page": dg.MetadataValue.path(str(place)), "incidents": len(report["incidents"]), "versions_live": len(account.releases),
        "evidence": dg.MetadataValue.md("\n".join(f"- **{name}**: {text}" for name, text in report["evidence"].items())),
    }  # fmt: skip
    return Outcome(record, digest, metadata)
