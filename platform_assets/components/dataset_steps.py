"""Steps of a dataset: ingested, validated, quarantined, protected, feature views. Each calls one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components import retention, subjects
from platform_assets.components.step import Outcome, Step, build_check, build_step, fingerprint, picture
from platform_assets.specs.compute import ComputeSpec
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.records import CheckResult, InForce, Ingestion, TablePin
from platform_assets.specs.subjects import ErasuresDone
from platform_assets.stages.placement.binding import bind

if TYPE_CHECKING:
    from platform_assets.stages.governance.hunt import Finding

CODE_VERSION = "1"
HUNTED = "no_undeclared_personal_data"


def build_dataset_assets(dataset: DatasetSpec, compute: ComputeSpec) -> list[dg.AssetsDefinition]:
    """Build every asset of one dataset, bound to the default profile."""
    from platform_assets.stages.validation.contract import check_names

    name = dataset.name
    states = {state: keys.dataset_key(name, state) for state in (*keys.DATASET_STATES, keys.ERASED, keys.RETENTION)}
    binding = bind(compute.profiles[compute.default], name=compute.default)
    build = partial(build_step, group=keys.dataset_group(name), owner=dataset.owner, code_version=CODE_VERSION, binding=binding)
    chain: list[tuple[str, Callable[[DatasetSpec, Step], Outcome], list[Sequence[str]], str, set[str], list[str]]] = [
        ("ingested", ingest_rows, [], "Rows as known at the data's time, merged by key into a Delta table.", {"deltalake"}, []),
        (
            "validated",
            validate_rows,
            [states["ingested"]],
            "The newest version that fulfils its contract.",
            {"greatexpectations"},
            [*check_names(dataset), HUNTED],
        ),
        (
            "quarantined",
            show_quarantine,
            [states["validated"]],
            "Rows set aside by the contract, personal data protected.",
            {"deltalake"},
            [],
        ),
        ("protected", protect_rows, [states["validated"]], "Personal data dropped, pseudonymised or generalised.", {"deltalake"}, []),
    ]
    steps = [
        build(
            states[state],
            partial(work, dataset),
            deps=deps,
            description=text,
            kinds=kinds,
            check_names=names,
        )
        for state, work, deps, text, kinds, names in chain
    ]
    views = [
        build(
            keys.features_key(name, view),
            partial(build_view, dataset, view),
            deps=[states["protected"]],
            description=f"Feature view {view}: history in Delta, newest values online through Feast.",
            kinds={"feast", "deltalake"},
        )
        for view in dataset.views
    ]
    text = "Erasures of persons: what was begun is finished, what was done is counted."
    beside = [
        build(states[keys.ERASED], partial(finish_erasures, dataset), deps=[states["validated"]], description=text, kinds={"decision"})
    ]
    text = "Rows whose declared period is over, removed from every version, with how many they were."
    kept = build(
        states[keys.RETENTION], partial(enforce_retention, dataset), deps=[states["validated"]], description=text, kinds={"decision"}
    )
    return [*steps, *views, *(beside if dataset.subject else []), kept]


def enforce_retention(dataset: DatasetSpec, step: Step) -> Outcome:
    """Remove what may not be kept any longer; the log says how much it was, and the record since when rows are kept."""
    done = retention.enforce(dataset, step.parts, step.context.instance, actor=f"run/{step.context.run.run_id}")
    metadata: dict[str, Any] = {
        "kept_since": done.before or "no period is declared", "rows_removed": sum(done.rows.values()),
        "removed": dg.MetadataValue.json(done.rows), "training_sets_removed": len(done.training_sets),
    }  # fmt: skip
    return Outcome(done, fingerprint(done), metadata)


def finish_erasures(dataset: DatasetSpec, step: Step) -> Outcome:
    """Finish every erasure that is under way, of whatever dataset; record how many the log holds."""
    for erasure in step.parts.erasures.under_way():
        subjects.erase(step.parts, step.context.instance, erasure)
    done = [entry for entry in step.parts.audit.entries(subject=subjects.SUBJECTS) if entry["action"] == subjects.ERASED]
    record = ErasuresDone(
        len(done), sum(int(entry["detail"]["rows"].get(dataset.name, 0)) for entry in done), done[-1]["at"] if done else ""
    )
    return Outcome(record, fingerprint(record), {"erasures": record.erasures, "rows": record.rows, "newest": record.newest or "none"})


def ingest_rows(dataset: DatasetSpec, step: Step) -> Outcome:
    """Merge what the source knows by now; the same input twice makes no new version."""
    from platform_assets.stages.datasets.ingest import ingest
    from platform_assets.stages.datasets.pictures import draw_target_over_time
    from resources.sealed_tables import sealed_columns

    parts, source = step.parts, step.parts.source(dataset.name)
    until = parts.start_clock(dataset) if dataset.history else None
    oldest = parts.clock.now(dataset.name) - dataset.retention if dataset.retention else None
    result: Ingestion = ingest(dataset, source=source, store=parts.tables, until=until, since=oldest)
    metadata: dict[str, object] = {
        "dagster/row_count": result.pin.rows, "bytes": result.size_bytes, "delta_version": result.pin.version,
        "content_hash": result.pin.content_hash, "rows_new": result.rows_new, "rows_changed": result.rows_changed, "as_of": result.as_of,
    }  # fmt: skip
    if sealed := sealed_columns(dataset):
        metadata["encrypted_columns"] = dg.MetadataValue.json(sealed)
    if dataset.label:
        rows = parts.tables.read(result.pin, columns=[dataset.event_time, dataset.label.column])
        metadata["target_over_time"] = picture(draw_target_over_time(rows, spec=dataset))
    return Outcome(result, result.pin.content_hash, metadata)


def validate_rows(dataset: DatasetSpec, step: Step) -> Outcome:
    """Hold the contract against the newest rows; a blocking breach leaves the last good version in force."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from platform_assets.stages.governance.hunt import hunt, say
    from platform_assets.stages.governance.protection import protect
    from platform_assets.stages.validation.contract import validate

    parts = step.parts
    key = keys.dataset_key(dataset.name, "validated")
    incoming = step.read(keys.dataset_key(dataset.name, "ingested"), Ingestion)
    before = step.find(key, InForce)
    rows = parts.tables.read(incoming.pin)
    verdict = validate(dataset, rows, previous_rows=before.pin.rows if before else None, now=parts.clock.now(dataset.name))
    findings = hunt(rows, columns=dataset.columns)
    hunted = build_check(key, HUNTED, passed=not findings, sentence=f"{say(findings, rows=rows.num_rows)}.", found=_listed(findings))
    checks = [*(_show(key, check) for check in verdict.checks), hunted]
    if findings:
        detail = {"columns": [asdict(finding) for finding in findings], "version": incoming.pin.version}
        parts.audit.append("personal_data_found", subject=f"dataset/{dataset.name}", actor=f"run/{step.context.run.run_id}", detail=detail)
    if not verdict.good or findings:
        why = say(findings, rows=rows.num_rows) if findings else verdict.sentence
        if before is None:
            raise dg.Failure(
                f"Version {incoming.pin.version} of {dataset.name} was refused and no earlier one is good: {why}", allow_retries=False
            )
        step.say(f"Version {incoming.pin.version} was refused; version {before.source_version} stays in force: {why}")
        kept = InForce(before.pin, before.source_version, refused=why, quarantined_rows=before.quarantined_rows)
        return Outcome(
            kept, kept.pin.content_hash, {"in_force": before.source_version, "refused": incoming.pin.version, "why": why}, checks
        )
    offends = pc.is_in(rows.column(dataset.key).cast(pa.string()), value_set=pa.array(verdict.offending_keys, pa.string()))
    bad = protect(rows.filter(offends), columns=dataset.columns, key=parts.pseudonym_key)
    parts.tables.replace(keys.table_name(keys.dataset_key(dataset.name, "quarantined")), bad)
    pin = parts.tables.replace(keys.table_name(key), rows.filter(pc.invert(offends)))
    record = InForce(pin, incoming.pin.version, quarantined_rows=bad.num_rows)
    return Outcome(
        record,
        pin.content_hash,
        {
            "dagster/row_count": pin.rows,
            "in_force": incoming.pin.version,
            "quarantined_rows": bad.num_rows,
            "checks": _count(verdict.checks),
            "hunt": say(findings, rows=rows.num_rows),
        },
        checks,
    )


def _listed(findings: Sequence[Finding]) -> dg.MetadataValue:
    return dg.MetadataValue.json([asdict(finding) for finding in findings])


def _count(checks: Sequence[CheckResult]) -> dg.MetadataValue:
    return dg.MetadataValue.json({"held": len(checks), "passed": sum(check.passed for check in checks)})


def _show(key: Sequence[str], check: CheckResult) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN
    figures = {"unexpected_count": check.unexpected_count, "samples": "\n".join(check.samples)}
    return build_check(key, check.name, passed=check.passed, sentence=check.sentence, severity=severity, **figures)


def show_quarantine(dataset: DatasetSpec, step: Step) -> Outcome:
    """State how many rows were set aside, and where they lie."""
    key = keys.dataset_key(dataset.name, "quarantined")
    pin = step.parts.tables.pin(keys.table_name(key))
    if pin is None:
        raise dg.Failure(f"{'/'.join(key)}: no quarantine table; materialise dataset/{dataset.name}/validated first.", allow_retries=False)
    return Outcome(pin, pin.content_hash, {"dagster/row_count": pin.rows, "table": step.parts.tables.location(pin.table)})


def protect_rows(dataset: DatasetSpec, step: Step) -> Outcome:
    """Drop, pseudonymise and generalise as declared; nothing downstream sees a raw personal value."""
    from platform_assets.stages.governance.anonymity import measure_anonymity
    from platform_assets.stages.governance.protection import protect

    parts = step.parts
    good = step.read(keys.dataset_key(dataset.name, "validated"), InForce)
    rows = protect(parts.tables.read(good.pin), columns=dataset.columns, key=parts.pseudonym_key)
    pin = parts.tables.replace(keys.table_name(keys.dataset_key(dataset.name, "protected")), rows)
    methods = {column: spec.personal.method for column, spec in dataset.columns.items() if spec.personal}
    found = measure_anonymity(rows, dataset=dataset)
    metadata: dict[str, Any] = {
        "dagster/row_count": pin.rows, "delta_version": pin.version, "protected_columns": dg.MetadataValue.json(methods),
        **({"k_anonymity": found.k, "l_diversity": found.l, "anonymity": dg.MetadataValue.json(found.as_record())} if found else {}),
    }  # fmt: skip
    return Outcome(pin, pin.content_hash, metadata)


def build_view(dataset: DatasetSpec, view: str, step: Step) -> Outcome:
    """Compute one feature view, keep its history in Delta, bring its newest values online."""
    from platform_assets.stages.features.schema import describe_view
    from platform_assets.stages.features.views import view_rows

    parts = step.parts
    table = keys.table_name(keys.features_key(dataset.name, view))
    protected = step.read(keys.dataset_key(dataset.name, "protected"), TablePin)
    pin = parts.tables.replace(table, view_rows(parts.tables.read(protected), dataset=dataset, view=view))
    described = describe_view(dataset, view, pin=pin)
    parts.features.apply([described])
    written = parts.features.materialise(described)
    metadata = {
        "dagster/row_count": pin.rows,
        "delta_version": pin.version,
        "online_entities_written": written,
        "feast_view": described.name,
    }
    return Outcome(pin, pin.content_hash, metadata)
