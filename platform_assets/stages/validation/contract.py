"""A dataset's contract as checks with fixed names, held against rows. Rules about single rows are asked in expectations.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.specs.base import format_span
from platform_assets.specs.records import CheckResult, Validation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.stages.validation.expectations import Breach

SCHEMA, TYPES, FRESH, VOLUME = "schema_matches", "types_match", "data_is_fresh", "volume_is_plausible"
REQUIRED, UNIQUE, RANGES, SETS = "required_values_present", "keys_are_unique", "values_within_ranges", "values_in_declared_sets"
SAMPLES, LONGEST = 5, 200  # offending rows shown of a column, and signs of a value
HIDDEN = "hidden"
_TYPE_TESTS = {
    "integer": pa.types.is_integer,
    "number": pa.types.is_floating,
    "string": pa.types.is_string,
    "boolean": pa.types.is_boolean,
    "timestamp": pa.types.is_timestamp,
    "image": pa.types.is_list,
    "text": pa.types.is_string,
}


def check_names(spec: DatasetSpec) -> list[str]:
    """List the checks of a dataset, in order; told from the declaration alone, without loading Great Expectations."""
    columns = spec.columns.values()
    optional = {
        RANGES: any(column.minimum is not None or column.maximum is not None or column.type == "number" for column in columns),
        SETS: any(column.values is not None for column in columns),
        FRESH: spec.contract.max_age is not None,
    }
    return [name for name in (SCHEMA, TYPES, REQUIRED, UNIQUE, RANGES, SETS, FRESH, VOLUME) if optional.get(name, True)]


def validate(spec: DatasetSpec, rows: pa.Table, *, previous_rows: int | None, now: datetime) -> Validation:
    """Hold rows against the contract; `previous_rows` is the size of the last good version, `now` the data's clock.

    Schema, types, freshness and volume always block. Offending rows block, or with `on_violation: quarantine` are set aside while
    they are at most `max_quarantined` of all. Where schema or types do not fit, the rules about rows are not asked, and say so.
    """
    shape = [_check_schema(spec, rows), _check_types(spec, rows)]
    if not all(check.passed for check in shape):
        skipped = "not asked, because schema or types do not match"
        rest = [CheckResult(name, passed=False, blocking=True, sentence=skipped) for name in check_names(spec)[len(shape) :]]
        return _verdict(spec, rows, [*shape, *rest], offending=())
    from platform_assets.stages.validation.expectations import find_breaches

    breaches = find_breaches(spec, rows, now=now)
    offending = _offending_rows(breaches, rows.num_rows)
    keys = rows[spec.key].take(offending)
    set_aside = (
        spec.contract.on_violation == "quarantine"
        and len(offending) <= spec.contract.max_quarantined * rows.num_rows
        and keys.null_count == 0  # a row without a key cannot be told from others, so it cannot be set aside
    )
    row_checks = [
        _check_rows(name, [breach for breach in breaches if breach.check == name], spec=spec, rows=rows, set_aside=set_aside)
        for name in (REQUIRED, UNIQUE, RANGES, SETS)
    ]
    found = {
        check.name: check for check in (*shape, *row_checks, _check_freshness(spec, rows, now), _check_volume(spec, rows, previous_rows))
    }
    checks = [found[name] for name in check_names(spec)]
    return _verdict(spec, rows, checks, offending=tuple(sorted({str(key) for key in keys.to_pylist() if key is not None})))


def _verdict(spec: DatasetSpec, rows: pa.Table, checks: list[CheckResult], *, offending: tuple[str, ...]) -> Validation:
    blocking = [check for check in checks if check.blocking and not check.passed]
    if blocking:
        sentence = f"{spec.name} is refused: " + "; ".join(f"{check.name}: {check.sentence}" for check in blocking)
    elif offending:
        sentence = f"{spec.name} is good without {len(offending):,} of {rows.num_rows:,} rows, which are set aside"
    else:
        sentence = f"{spec.name} fulfils its contract with {rows.num_rows:,} rows"
    return Validation(good=not blocking, checks=tuple(checks), offending_keys=offending, rows=rows.num_rows, sentence=sentence)


def _check_schema(spec: DatasetSpec, rows: pa.Table) -> CheckResult:
    missing = [name for name in spec.columns if name not in rows.column_names]
    extra = [name for name in rows.column_names if name not in spec.columns]
    parts = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("not declared", extra)) if names]
    sentence = "; ".join(parts) or f"all {len(spec.columns)} declared columns are there, and no other"
    return CheckResult(SCHEMA, passed=not parts, blocking=True, sentence=sentence, unexpected_count=len(missing) + len(extra))


def _check_types(spec: DatasetSpec, rows: pa.Table) -> CheckResult:
    wrong = [
        f"{name} is {rows.schema.field(name).type}, declared {column.type}"
        for name, column in spec.columns.items()
        if name in rows.column_names and not _TYPE_TESTS[column.type](rows.schema.field(name).type)
    ]
    return CheckResult(
        TYPES, passed=not wrong, blocking=True, sentence="; ".join(wrong) or "every column has its type", unexpected_count=len(wrong)
    )


def _check_freshness(spec: DatasetSpec, rows: pa.Table, now: datetime) -> CheckResult:
    max_age = spec.contract.max_age
    newest = pc.max(rows[spec.event_time]).as_py()
    if max_age is None or newest is None:
        return CheckResult(FRESH, passed=max_age is None, blocking=True, sentence=f"no row has a {spec.event_time}")
    age = now - newest
    old = f"{max(age.total_seconds(), 0) / 86400:.3g} days older than the data's clock"
    sentence = f"newest {spec.event_time} is {newest.isoformat()}, {old}; at most {format_span(max_age)} is allowed"
    return CheckResult(FRESH, passed=age <= max_age, blocking=True, sentence=sentence)


def _check_volume(spec: DatasetSpec, rows: pa.Table, previous_rows: int | None) -> CheckResult:
    contract = spec.contract
    floor = max(contract.min_rows, round((previous_rows or 0) * (1 - contract.max_shrink)))
    before = f", {previous_rows:,} in the last good version" if previous_rows is not None else ""
    sentence = f"{rows.num_rows:,} rows{before}; at least {floor:,} are asked"
    return CheckResult(VOLUME, passed=rows.num_rows >= floor, blocking=True, sentence=sentence)


def _check_rows(name: str, breaches: list[Breach], *, spec: DatasetSpec, rows: pa.Table, set_aside: bool) -> CheckResult:
    places = _offending_rows(breaches, rows.num_rows)
    if not len(places):
        return CheckResult(name, passed=True, blocking=not set_aside, sentence=f"all {rows.num_rows:,} rows fulfil it")
    columns = ", ".join(sorted({breach.column for breach in breaches}))
    share = 100 * len(places) / rows.num_rows
    fate = "set aside" if set_aside else "blocking"
    if not set_aside and spec.contract.on_violation == "quarantine":
        fate = f"blocking: all offending rows together are more than {100 * spec.contract.max_quarantined:g} %, or lack a key"
    sentence = f"{len(places):,} of {rows.num_rows:,} rows ({share:.2g} %) offend in {columns}; {fate}"
    samples = tuple(_sample(breach, place, spec=spec, rows=rows) for breach in breaches for place in breach.rows[:SAMPLES])[: 4 * SAMPLES]
    return CheckResult(name, passed=False, blocking=not set_aside, sentence=sentence, unexpected_count=len(places), samples=samples)


def _sample(breach: Breach, place: int, *, spec: DatasetSpec, rows: pa.Table) -> str:
    """Write key, column and value of one offending row; personal values never leave the table."""
    return f"{_shown(spec.key, place, spec=spec, rows=rows)}: {breach.column} = {_shown(breach.column, place, spec=spec, rows=rows)}"


def _shown(name: str, place: int, *, spec: DatasetSpec, rows: pa.Table) -> str:
    column = spec.columns[name]
    if column.personal is not None:
        return HIDDEN
    if column.type == "image":
        return f"a picture of {column.shape}"
    shown = repr(rows[name][place].as_py())
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def _offending_rows(breaches: Iterable[Breach], num_rows: int) -> pa.Array:
    places = sorted({int(place) for breach in breaches for place in breach.rows})
    assert not places or places[-1] < num_rows
    return pa.array(places, pa.int64())
