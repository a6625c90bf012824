"""Any two tables held against each other, with what a release knows of their columns or without. Where tables come from is the caller's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_assets.errors import DataError
from platform_assets.specs.records import DriftReport, Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, judge_labels, report_window
from platform_assets.stages.monitoring.reference import build_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from platform_assets.specs.model import MonitoringSpec

_LOOKED_AT = 1000  # rows from which a text is told from a category
_WORDS = 3.0  # a text's, on the mean


@dataclass(frozen=True)
class Compared:
    """The report, one window that is the whole current table, and the columns that could not be compared, each with the reason."""

    report: DriftReport
    left_out: dict[str, str]


def compare_tables(
    reference: pa.Table,
    current: pa.Table,
    *,
    spec: MonitoringSpec,
    schema: FeatureSchema | None = None,
    importance: Mapping[str, float] | None = None,
) -> Compared:
    """Hold `current` against `reference`, column by column of those that both have.

    `schema`, `importance`: a release's; without them kinds are told from types and every column counts. Thresholds come from blocks of the
    reference as large as the current table, where it has at least three. Raises DataError.
    """
    for name, table in (("reference", reference), ("current", current)):
        if not table.num_rows:
            raise DataError(f"the {name} table has no rows; a drift report needs at least one on each side")
    told, left_out = _tell(reference, current, schema)
    if not told.features:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise DataError(f"the tables have no column in common that can be compared ({reasons}); give two tables of the same columns")
    past, now = (_typed(table, told) for table in (reference, current))
    spec = spec.model_copy(update={"window_rows": min(now.num_rows, past.num_rows)})
    summary = build_reference(past, schema=told, probabilities=None, spec=spec, importance=importance)
    window = Window(0, 0, now.num_rows - 1, ())
    found = report_window(summary, now, window=window, schema=told, probabilities=None, importance=importance, spec=spec)
    if told.target in now.column_names:
        shift = judge_labels(summary, now[told.target], spec=spec)
        found = replace(found, columns=(*found.columns, *((shift,) if shift else ())))
    return Compared(DriftReport((found,)), left_out)


def _tell(reference: pa.Table, current: pa.Table, schema: FeatureSchema | None) -> tuple[FeatureSchema, dict[str, str]]:
    """Return what is compared, and why the rest is not."""
    known = {feature.name: feature for feature in schema.features} if schema else {}
    roles = {schema.key: "the key", schema.event_time: "the time of the event", schema.target: "the target"} if schema else {}
    features: list[Feature] = []
    left_out: dict[str, str] = {}
    for name in dict.fromkeys([*reference.column_names, *current.column_names]):
        if name in roles:
            continue
        if name not in reference.column_names or name not in current.column_names:
            side = "reference" if name in reference.column_names else "current table"
            left_out[name] = f"only the {side} has it"
            continue
        kinds = {known[name].kind} if name in known else {_kind_of(table[name]) for table in (reference, current)} - {None}
        if kinds == {"category", "numeric"}:  # words in one table that another reader took for numbers
            kinds = {"category"}
        dated = schema is not None and all(schema.event_time in table.column_names for table in (reference, current))
        if schema and name not in known:
            left_out[name] = "the model does not read it"
        elif len(kinds) > 1:
            left_out[name] = f"it is {' in one table and '.join(sorted(map(str, kinds)))} in the other"
        elif not kinds or (kinds == {"date"} and not dated):
            left_out[name] = (
                f"{reference.schema.field(name).type} moves by nature" if kinds else f"{reference.schema.field(name).type} is not watched"
            )
        else:
            (kind,) = kinds
            features.append(known.get(name) or Feature(name, kind, "", ""))
    if schema:
        return replace(schema, features=tuple(features)), left_out
    return FeatureSchema(tuple(features), "", (), "", ""), left_out


def _kind_of(column: pa.ChunkedArray) -> Any:
    """Tell a column's kind from its type; None of one that holds nothing or that is not watched."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count == len(column):
        return None
    if pa.types.is_boolean(type_):
        return "category"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "numeric"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "date"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        words = pc.list_value_length(pc.utf8_split_whitespace(column.slice(0, _LOOKED_AT).cast(pa.string()).drop_null()))
        return "text" if (pc.mean(words).as_py() or 0.0) >= _WORDS else "category"
    return None


def _typed(table: pa.Table, schema: FeatureSchema) -> pa.Table:
    """Return the columns that are compared, in the types that signals are taken from. Raises DataError."""
    columns = {}
    for feature in schema.features:
        if feature.kind == "image":
            columns[feature.name] = table[feature.name]
            continue
        wanted = {"numeric": pa.float64(), "date": pa.timestamp("us")}.get(feature.kind, pa.string())
        try:
            columns[feature.name] = table[feature.name].cast(wanted, safe=False)
        except pa.ArrowException as error:
            sentence = str(error).splitlines()[0]
            raise DataError(
                f"column {feature.name} of type {table[feature.name].type} cannot be read as {feature.kind} ({sentence})"
            ) from error
    if schema.target in table.column_names:
        columns[schema.target] = table[schema.target].cast(pa.string())
    if schema.event_time in table.column_names:
        columns[schema.event_time] = table[schema.event_time].cast(pa.timestamp("us"))
    return pa.table(columns)
