"""The contract's rules about single rows as a Great Expectations suite, run on pandas. Verdicts are made in contract.py.

Two passes, because of what each result format costs (119,390 rows, 56 expectations: BOOLEAN_ONLY 1 s of CPU, COMPLETE with row numbers
1.9 s, COMPLETE with its query text 8.8 s): all rules are asked for yes or no, and only those that fail for their rows.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pandas as pd

    from platform_assets.specs.dataset import DatasetSpec

_LEAST, _MOST = "__least", "__most"  # of a picture: its darkest and brightest pixel
_DUE = "__due"
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Breach:
    """One rule that did not hold: which check it belongs to, in which column, for which rows (by number)."""

    check: str
    column: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Rule:
    check: str
    column: str
    kind: Any
    arguments: dict[str, Any]


def find_breaches(spec: DatasetSpec, rows: pa.Table, *, now: datetime) -> list[Breach]:
    """Return every rule that does not hold and its rows. A label is asked for only where it is known by `now`."""
    if rows.num_rows == 0:
        return []
    frame = _frame(spec, rows, now=now)
    rules = list(_rules(spec))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own about pandas, once per expectation
        batch = _batch(frame)
        holds = _ask(batch, rules, {"result_format": "BOOLEAN_ONLY"})
        failed = [rule for rule, result in zip(rules, holds, strict=True) if not result.success]
        found = _ask(batch, failed, {"result_format": "COMPLETE", "return_unexpected_index_query": False}) if failed else []
    return [
        Breach(rule.check, rule.column, tuple(sorted(result.result["unexpected_index_list"])))
        for rule, result in zip(failed, found, strict=True)
    ]


def _rules(spec: DatasetSpec) -> Iterator[_Rule]:
    import great_expectations.expectations as gxe

    between, present, in_set = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToNotBeNull, gxe.ExpectColumnValuesToBeInSet
    yield _Rule("keys_are_unique", spec.key, gxe.ExpectColumnValuesToBeUnique, {"column": spec.key})
    if spec.label is not None:
        yield _Rule("required_values_present", spec.label.column, present, {"column": spec.label.column + _DUE})
    for name, column in spec.columns.items():
        if not column.nullable and (spec.label is None or name != spec.label.column):
            yield _Rule("required_values_present", name, present, {"column": name})
        if column.values is not None:  # noqa: PD011  a declaration's field, not pandas'
            yield _Rule("values_in_declared_sets", name, in_set, {"column": name, "value_set": list(column.values)})
        if column.type == "number" or column.minimum is not None or column.maximum is not None:
            # Without declared bounds a number must still be finite.
            low = -_LARGEST if column.minimum is None else column.minimum
            high = _LARGEST if column.maximum is None else column.maximum
            for part in (_LEAST, _MOST) if column.type == "image" else ("",):
                yield _Rule("values_within_ranges", name, between, {"column": name + part, "min_value": low, "max_value": high})


def _frame(spec: DatasetSpec, rows: pa.Table, *, now: datetime) -> pd.DataFrame:
    """Give the rows as pandas, numbered from 0; pictures as their extremes; beside the label, whether it is there where it is due."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, column in spec.columns.items():
        values = rows[name]
        if column.type == "image":
            columns[name] = _there(pc.is_valid(values))
            columns |= _extremes(name, values)
        else:
            columns[name] = values.to_pandas()
    if spec.label is not None:
        pending = pc.greater(rows[spec.label.known_at], pa.scalar(now, pa.timestamp("us")))
        columns[spec.label.column + _DUE] = _there(pc.or_kleene(pc.is_valid(rows[spec.label.column]), pending))
    return pd.DataFrame(columns)


def _there(flags: pa.ChunkedArray) -> np.ndarray:
    """Write 1 where a value is there or not asked for, NaN where it is missing."""
    return np.where(pc.fill_null(flags, False).to_numpy(), 1.0, np.nan)


def _extremes(name: str, pictures: pa.ChunkedArray) -> dict[str, np.ndarray]:
    whole = pictures.combine_chunks()
    parents, pixels = pc.list_parent_indices(whole).to_numpy(), pc.list_flatten(whole).to_numpy()
    least, most = np.full(len(whole), np.nan), np.full(len(whole), np.nan)
    np.fmin.at(least, parents, pixels)
    np.fmax.at(most, parents, pixels)
    return {name + _LEAST: least, name + _MOST: most}


def _batch(frame: pd.DataFrame) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def _ask(batch: Any, rules: list[_Rule], result_format: dict[str, Any]) -> list[Any]:
    """Return the results in the order of the rules; a suite gives them back in an order of its own."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(name="contract")
    for number, rule in enumerate(rules):
        suite.add_expectation(rule.kind(**rule.arguments, meta={"rule": number}))
    results = batch.validate(suite, result_format=result_format).results
    return sorted(results, key=lambda result: result.expectation_config.meta["rule"])
