"""What is watched of a set of rows: one signal a column, and what the model answered. Nothing is compared here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.networks.tokens import Tokeniser
    from platform_assets.specs.records import Feature, FeatureSchema

PREDICTION = "prediction"
CONFIDENCE = "prediction confidence"
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, eq=False)
class Signal:
    """Values of one watched column; `feature` is the model's input it is taken from ("" for what the model answered).

    number: float64, NaN is missing; category: str objects, "" is missing.
    """

    name: str
    feature: str
    kind: Literal["number", "category"]
    values: np.ndarray


def take_signals(
    rows: pa.Table, *, schema: FeatureSchema, probabilities: np.ndarray, tokeniser: Tokeniser | None = None
) -> tuple[Signal, ...]:
    """Signals of rows that hold every feature as a plain column and the event time; `probabilities`: [rows, classes].

    A date is watched as its distance in days from the event: the date itself moves on by nature and would always drift. A text is watched
    as its length in characters and as the share of its tokens that the `tokeniser` does not know.
    """
    event_time = rows[schema.event_time]
    inputs = [signal for feature in schema.features for signal in _of_feature(feature, rows[feature.name], event_time, tokeniser)]
    return (*inputs, *take_answers(probabilities, classes=schema.classes))


def order_by_event(rows: pa.Table, *, schema: FeatureSchema) -> np.ndarray:
    """Row numbers in order of event time; rows of one time keep their order."""
    return np.argsort(rows[schema.event_time].to_numpy(zero_copy_only=False), kind="stable")


def _of_feature(feature: Feature, column: pa.ChunkedArray, event_time: pa.ChunkedArray, tokeniser: Tokeniser | None) -> list[Signal]:
    if feature.kind == "text":
        return _of_text(feature.name, column, tokeniser)
    if feature.kind == "category":
        texts = column.fill_null("").to_numpy(zero_copy_only=False).astype(object)
        return [Signal(feature.name, feature.name, "category", texts)]
    if feature.kind == "image":
        pixels = _pixels(column, feature.size)
        figures = {"brightness": pixels.mean(axis=1), "contrast": pixels.std(axis=1)}
        return [Signal(f"{feature.name} {name}", feature.name, "number", values) for name, values in figures.items()]
    values = _days_after(column, event_time) if feature.kind == "date" else _numbers(column)
    return [Signal(feature.name, feature.name, "number", values)]


def _of_text(name: str, column: pa.ChunkedArray, tokeniser: Tokeniser | None) -> list[Signal]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from platform_assets.networks.tokens import unknown_shares

    lengths = pc.utf8_length(column.fill_null("")).to_numpy(zero_copy_only=False).astype(np.float64)
    signals = [Signal(f"{name} length", name, "number", lengths)]
    if tokeniser is not None:
        whole = pa.concat_arrays(column.fill_null("").chunks)
        signals.append(Signal(f"{name} unknown share", name, "number", unknown_shares(whole, tokeniser=tokeniser)))
    return signals


def take_answers(probabilities: np.ndarray, *, classes: tuple[str, ...]) -> list[Signal]:
    """Signals of what a model answered, [rows, classes]."""
    probabilities = np.asarray(probabilities, np.float64)
    if len(classes) == 2:  # noqa: PLR2004  (one score says it all)
        return [Signal(PREDICTION, "", "number", probabilities[:, 1])]
    answered = np.array(classes, dtype=object)[probabilities.argmax(axis=1)]
    return [Signal(PREDICTION, "", "category", answered), Signal(CONFIDENCE, "", "number", probabilities.max(axis=1))]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _days_after(column: pa.ChunkedArray, event_time: pa.ChunkedArray) -> np.ndarray:
    dates, events = (_microseconds(array) for array in (column, event_time))
    days: np.ndarray = (dates - events) / _DAY  # NaT becomes NaN
    return days


def _microseconds(column: pa.ChunkedArray) -> Any:
    return column.to_numpy(zero_copy_only=False).astype("datetime64[us]")


def _pixels(column: pa.ChunkedArray, size: int) -> np.ndarray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float64).reshape(-1, size)
