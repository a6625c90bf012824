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
LABEL = "label"
_DAY = np.timedelta64(1, "D")
_LARGEST = 1e150  # numbers whose squares no float holds are as good as infinite


@dataclass(frozen=True, eq=False)
class Signal:
    """Values of one watched column; `feature` is the model's input it is taken from ("" for what the model answered).

    number: float64, NaN and infinite are missing; category: Arrow strings, null and "" are missing; words: those of all texts.
    """

    name: str
    feature: str
    kind: Literal["number", "category", "words"]
    values: Any
    rows: int

    def known(self) -> Any:
        """Return the values that are not missing."""
        if self.kind == "number":
            finite = np.abs(self.values) < _LARGEST  # NaN is not
            return self.values if finite.all() else self.values[finite]
        import pyarrow.compute as pc

        return self.values.filter(pc.not_equal(self.values, ""))  # drops null too

    def missing(self) -> int:
        """Count the rows whose value is missing; a text without words is told by its length."""
        return 0 if self.kind == "words" else self.rows - len(self.known())

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return some rows' values, float64 or str objects ("" is missing)."""
        if self.kind == "number":
            return np.asarray(self.values[places])
        taken = self.values.take(places).fill_null("")
        return np.array(taken.to_pylist(), dtype=object)


def take_signals(
    rows: pa.Table, *, schema: FeatureSchema, probabilities: np.ndarray | None, tokeniser: Tokeniser | None = None
) -> tuple[Signal, ...]:
    """Signals of rows that hold every feature as a plain column and the event time; `probabilities`: [rows, classes], None: not asked.

    A date is watched as its distance in days from the event: the date itself moves on by nature and would always drift. A text is watched
    by its length in characters, its words and the share of its tokens that the `tokeniser` does not know. Columns of an embedding
    (monitoring.embedding) are numbers of their feature.
    """
    event_time = rows[schema.event_time] if schema.of_kind("date") else None
    inputs = [signal for feature in schema.features for signal in _of_feature(feature, rows[feature.name], event_time, tokeniser)]
    embedded = [
        Signal(name, feature.name, "number", _numbers(rows[name]), rows.num_rows)
        for feature in schema.of_kind("image", "text")
        for name in rows.column_names
        if name.startswith(embedding_column(feature.name, ""))
    ]
    return (*inputs, *embedded, *(() if probabilities is None else take_answers(probabilities, classes=schema.classes)))


def embedding_column(feature: str, place: int | str) -> str:
    """Return the name of one number of a feature's embedding."""
    return f"{feature} embedding {place}"


def take_labels(labels: pa.ChunkedArray) -> Signal:
    """Signal of outcomes, as far as they are known."""
    return Signal(LABEL, "", "category", labels, len(labels))


def order_by_event(rows: pa.Table, *, schema: FeatureSchema) -> np.ndarray:
    """Row numbers in order of event time; rows of one time keep their order."""
    return np.argsort(rows[schema.event_time].to_numpy(zero_copy_only=False), kind="stable")


def span_of(rows: pa.Table, *, schema: FeatureSchema) -> tuple[str, str]:
    """Return first and last event of rows in order of event; empty where they carry none."""
    if schema.event_time not in rows.column_names:
        return "", ""
    events = rows[schema.event_time]
    return str(events[0].as_py()), str(events[-1].as_py())


def _of_feature(feature: Feature, column: pa.ChunkedArray, event_time: pa.ChunkedArray | None, tokeniser: Tokeniser | None) -> list[Signal]:
    if feature.kind == "text":
        return _of_text(feature.name, column, tokeniser)
    if feature.kind == "category":
        import pyarrow as pa

        texts = column if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else column.cast(pa.string())
        return [Signal(feature.name, feature.name, "category", texts, len(texts))]
    if feature.kind == "image":
        pixels = _pixels(column, feature.size)
        figures = {"brightness": pixels.mean(axis=1), "contrast": pixels.std(axis=1)}
        return [Signal(f"{feature.name} {name}", feature.name, "number", values, len(values)) for name, values in figures.items()]
    values = _days_after(column, event_time) if feature.kind == "date" and event_time is not None else _numbers(column)
    return [Signal(feature.name, feature.name, "number", values, len(values))]


def _of_text(name: str, column: pa.ChunkedArray, tokeniser: Tokeniser | None) -> list[Signal]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from platform_assets.networks.tokens import unknown_shares

    texts = column.fill_null("")
    rows = len(texts)
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.float64)
    words = pc.list_flatten(pc.utf8_split_whitespace(pc.utf8_lower(texts)))
    signals = [Signal(f"{name} length", name, "number", lengths, rows), Signal(f"{name} words", name, "words", words, rows)]
    if tokeniser is not None:
        whole = pa.concat_arrays(texts.chunks)
        signals.append(Signal(f"{name} unknown share", name, "number", unknown_shares(whole, tokeniser=tokeniser), rows))
    return signals


def take_answers(probabilities: np.ndarray, *, classes: tuple[str, ...]) -> list[Signal]:
    """Signals of what a model answered, [rows, classes]."""
    import pyarrow as pa

    probabilities = np.asarray(probabilities, np.float64)
    rows = len(probabilities)
    if len(classes) == 2:  # noqa: PLR2004  (one score says it all)
        return [Signal(PREDICTION, "", "number", probabilities[:, 1], rows)]
    answered = pa.array(classes).take(pa.array(probabilities.argmax(axis=1)))
    return [Signal(PREDICTION, "", "category", answered, rows), Signal(CONFIDENCE, "", "number", probabilities.max(axis=1), rows)]


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
