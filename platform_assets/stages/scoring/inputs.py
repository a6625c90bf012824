"""Arrow columns to the arrays a graph takes, without a Python object a cell. Values are as training and the server read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import DataError
from platform_assets.stages.scoring.arrow import as_numpy

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

MISSING = ""
_DAY = 86_400e6  # microseconds
_KNOWN_VALUES = 50_000  # looked-up categories that are kept a column; beyond that they are looked up again a batch

LookUp = Callable[[list[list[str]]], np.ndarray]


class ColumnReader:
    """Reads batches of one model's columns. Not for several threads at once: each takes its own."""

    def __init__(self, schema: FeatureSchema, *, look_up: LookUp | None, tensor: str = "categorical") -> None:
        """`look_up` gives the rest of a cut graph its numbers [values, columns] for strings, column by column; None: the graph is whole."""
        self._schema = schema
        self._look_up, self._tensor = look_up, tensor
        self._numbers = schema.of_kind("numeric", "date")
        self._categories = schema.of_kind("category")
        self._images = schema.of_kind("image")
        self._texts = schema.of_kind("text")
        self._known: list[dict[str, Any]] = [{} for _ in self._categories]
        self._block: np.ndarray | None = None  # written again and again: new memory would be zeroed by the kernel each time
        self._kind: np.dtype[Any] = np.dtype(np.int64)

    def read(self, batch: pa.RecordBatch, *, most: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield arrays of at most `most` rows of a batch that has every feature as a column of its kind; they hold until the next ones.

        Kinds are numbers, times, text or dictionaries of it, and lists.
        """
        numbers = [_numbers(batch.column(feature.name), feature) for feature in self._numbers]
        whole: dict[str, np.ndarray] = {}
        if self._categories:
            whole[self._tensor] = self._read_categories(batch) if self._look_up is not None else self._strings(batch, self._categories)
        if self._images:
            whole["image"] = np.concatenate([_pixels(batch.column(f.name), f) for f in self._images], axis=1, dtype=np.float32)
        if self._texts:
            whole["text"] = self._strings(batch, self._texts)
        for start in range(0, batch.num_rows, most):
            stop = min(start + most, batch.num_rows)
            arrays = {name: array[start:stop] for name, array in whole.items()}
            if numbers:
                # Rows side by side only here: a block fits the cache, so that the graph finds in it what was just written.
                if self._block is None or len(self._block) < most:
                    self._block = np.empty((most, len(numbers)), np.float32)
                arrays["numeric"] = block = self._block[: stop - start]
                for place, column in enumerate(numbers):
                    block[:, place] = column[start:stop]
            yield arrays

    def _read_categories(self, batch: pa.RecordBatch) -> np.ndarray:
        found = [_dictionary(batch.column(feature.name)) for feature in self._categories]
        self._learn([values for values, _ in found])
        looked_up = None
        for place, (values, indices) in enumerate(found):
            known = self._known[place]
            numbers = np.array([known[value] for value in values], self._kind)
            if looked_up is None:
                looked_up = np.empty((batch.num_rows, len(found)), self._kind)
            np.take(numbers, indices, out=looked_up[:, place], mode="clip")
        assert looked_up is not None
        return looked_up

    def _learn(self, columns: list[list[str]]) -> None:
        """Look up what is new, all columns in one run."""
        assert self._look_up is not None
        for known in self._known:
            if len(known) > _KNOWN_VALUES:
                known.clear()
        new = [[value for value in values if value not in known] for values, known in zip(columns, self._known, strict=True)]
        most = max(map(len, new), default=0)
        if most == 0:
            return
        answers = self._look_up([[*values, *[MISSING] * (most - len(values))] for values in new])
        self._kind = answers.dtype
        for place, values in enumerate(new):
            self._known[place].update(zip(values, answers[: len(values), place].tolist(), strict=True))

    def _strings(self, batch: pa.RecordBatch, features: tuple[Feature, ...]) -> np.ndarray:
        array = np.empty((batch.num_rows, len(features)), dtype=object)
        for place, feature in enumerate(features):
            values, indices = _dictionary(batch.column(feature.name))
            array[:, place] = np.array(values, dtype=object)[indices]
        return array


def _numbers(column: pa.Array, feature: Feature) -> np.ndarray:
    import pyarrow as pa

    floating = pa.types.is_floating(column.type)
    if feature.kind == "date" and not floating:  # floating are days already
        return as_numpy(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64()), missing=np.nan) / _DAY
    return as_numpy(column if floating else column.cast(pa.float64()), missing=np.nan)


def _dictionary(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """Different values of a column, the last of them the missing one, and each row's place among them."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.string())  # "true" and "false", as the server reads them
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values = [MISSING if value is None else value for value in column.dictionary.to_pylist()]
    return [*values, MISSING], as_numpy(column.indices, missing=len(values))


def _pixels(column: pa.Array, feature: Feature) -> np.ndarray:
    flat = column.flatten()
    if column.null_count or flat.null_count or len(flat) != len(column) * feature.size:
        raise DataError(f"column {feature.name}: every row needs a list of {feature.size} numbers")
    return as_numpy(flat, missing=np.nan).astype(np.float32, copy=False).reshape(-1, feature.size)
