"""A table in order of time as numbers, cut into windows: what is predicted, from what, and what was left out because it tells the answer.

Nothing looks ahead: categories are numbered by the history and then as they come, and suspects are judged on the history alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from platform_assets.errors import DataError
from platform_assets.stages.replay.suspects import Suspect, find_suspects

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

Kind = Literal["binary", "multiclass", "regression"]
WINDOWS = 60  # that a table is cut into where no size is asked for
_FEWEST_ROWS, _MOST_ROWS, _FEWEST_WINDOWS = 50, 50_000, 10
_MOST_CLASSES = 20  # whole numbers of more values are an amount, not a class
_TWO = 2


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows in order of time. `targets`: class indices, or amounts; `categories`: which columns of `values` hold category numbers."""

    kind: Kind
    target: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    categories: tuple[int, ...]
    values: np.ndarray
    targets: np.ndarray
    times: tuple[str, ...]  # first time of each window
    window_rows: int
    history_windows: int
    left_out: tuple[Suspect, ...]
    rows_dropped: int

    @property
    def windows(self) -> int:
        """Full windows, those of the history included; a rest at the end is not replayed."""
        return len(self.targets) // self.window_rows

    def rows(self, first: int, last: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return values and targets of windows `first` up to, without, `last`; of `first` alone where no last is named."""
        part = slice(max(0, first) * self.window_rows, (first + 1 if last is None else last) * self.window_rows)
        return self.values[part], self.targets[part]


def open_stream(
    table: pa.Table, *, time: str, target: str, without: Sequence[str] = (), window_rows: int | None = None, history_windows: int = 5
) -> Stream:
    """Order a table by `time`, tell from `target` what kind it is, and turn all other columns into numbers.

    Rows without time or target are dropped and counted. Columns that are the time or the target in disguise are left out and named.
    """
    frame = _ordered(table, time=time, target=target, without=without)
    rows = window_rows or int(np.clip(frame.height // WINDOWS, _FEWEST_ROWS, _MOST_ROWS))
    windows = frame.height // rows
    if windows < max(_FEWEST_WINDOWS, history_windows + _TWO):
        raise DataError(
            f"{frame.height} rows make {windows} windows of {rows}; a replay needs {max(_FEWEST_WINDOWS, history_windows + _TWO)}: "
            "give a longer table or a smaller --window-rows"
        )
    kind, classes, targets = _read_target(frame[target], target)
    history = history_windows * rows
    columns: list[str] = []
    arrays: list[np.ndarray] = []
    categories: list[int] = []
    for name in frame.columns:
        if name in (time, target):
            continue
        found = _to_numbers(frame[name], frame[time], history=history)
        if found is None:
            continue
        if frame[name].dtype in _TEXTS:
            categories.append(len(columns))
        columns.append(name)
        arrays.append(found)
    suspects = find_suspects(
        {name: values[:history] for name, values in zip(columns, arrays, strict=True)},
        targets[:history],
        amounts=kind == "regression",
        rising={name: values for name, values in zip(columns, arrays, strict=True) if columns.index(name) not in categories},
    )
    banned = {suspect.column for suspect in suspects}
    kept = [place for place, name in enumerate(columns) if name not in banned]
    if not kept:
        raise DataError(f"no column is left to predict {target!r} from; left out are {', '.join(sorted(banned)) or 'none'}")
    return Stream(
        kind=kind,
        target=target,
        classes=classes,
        columns=tuple(columns[place] for place in kept),
        categories=tuple(new for new, place in enumerate(kept) if place in categories),
        values=np.column_stack([arrays[place] for place in kept]),
        targets=targets,
        times=tuple(str(value) for value in frame[time].gather_every(rows).to_list()),
        window_rows=rows,
        history_windows=history_windows,
        left_out=tuple(suspects),
        rows_dropped=table.num_rows - frame.height,
    )


_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Boolean)


def _ordered(table: pa.Table, *, time: str, target: str, without: Sequence[str]) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    for role, name in (("--time", time), ("--target", target), *(("--without", name) for name in without)):
        if name not in frame.columns:
            raise DataError(f"{role} {name}: the table has no such column; it has {', '.join(frame.columns)}")
    if time == target:
        raise DataError(f"--time and --target both name {time}; the target is another column than the time")
    frame = frame.drop(without).drop_nulls([time, target])
    if frame[target].dtype.is_float():
        frame = frame.filter(pl.col(target).is_finite())
    moment = frame[time]
    if moment.dtype == pl.String:
        read = _read_times(moment)
        if read.null_count():
            bad = moment.filter(read.is_null())[0]
            raise DataError(f"--time {time}: {bad!r} is no time; write ISO 8601, for example 2026-11-25 08:00:00")
        frame = frame.with_columns(read.alias(time))
    elif not (moment.dtype.is_temporal() or moment.dtype.is_numeric()):
        raise DataError(f"--time {time}: {moment.dtype} is neither a time nor a number; name the column that orders the rows")
    return frame.sort(time, maintain_order=True)


def _read_times(texts: pl.Series) -> pl.Series:
    try:
        return texts.str.to_datetime(strict=False)
    except pl.exceptions.ComputeError:  # not one of them looks like a time
        return pl.Series(texts.name, [None] * len(texts), dtype=pl.Datetime)


def _read_target(column: pl.Series, name: str) -> tuple[Kind, tuple[str, ...], np.ndarray]:
    distinct = column.unique().sort()
    whole = not column.dtype.is_float() or bool((column == column.round()).all())
    if len(distinct) < _TWO:
        raise DataError(f"--target {name}: every row has the same value ({distinct[0] if len(distinct) else 'none'}); nothing to predict")
    if column.dtype.is_numeric() and not (len(distinct) <= _TWO or (whole and len(distinct) <= _MOST_CLASSES)):
        return "regression", (), column.cast(pl.Float64).to_numpy()
    if column.dtype.is_temporal() or column.dtype.is_nested():
        raise DataError(f"--target {name}: {column.dtype} can be neither a class nor an amount; name a column of numbers or words")
    if len(distinct) > column.len() // 10:
        raise DataError(f"--target {name}: {len(distinct)} different values in {column.len()} rows are not classes; name another column")
    words = tuple(str(value) for value in distinct.to_list())
    places = {value: place for place, value in enumerate(words)}
    codes = np.array([places[str(value)] for value in column.to_list()], dtype=np.float64)
    return ("binary" if len(words) == _TWO else "multiclass"), words, codes


def _to_numbers(column: pl.Series, time: pl.Series, *, history: int) -> np.ndarray | None:
    """One column as float64, NaN is missing; a date counts from the row's own time. None: a kind that no number can be made of."""
    if column.dtype in _TEXTS:
        return _number_categories(column, history=history)
    if column.dtype.is_temporal() and column.dtype not in (pl.Duration, pl.Time):
        if not time.dtype.is_temporal():
            return None
        distance = column.cast(pl.Datetime("us")).dt.epoch("s") - time.cast(pl.Datetime("us")).dt.epoch("s")
        return _floats(distance) / 86400.0
    if column.dtype.is_temporal():
        return _floats(column.to_physical())
    return _floats(column) if column.dtype.is_numeric() else None


def _number_categories(column: pl.Series, *, history: int) -> np.ndarray:
    """Number categories by how often the history has them, later ones in the order they come."""
    texts = column.cast(pl.String)
    common = texts[:history].drop_nulls().value_counts(sort=True)[column.name].to_list()
    known = dict.fromkeys(common)
    known.update(dict.fromkeys(texts[history:].drop_nulls().unique(maintain_order=True).to_list()))
    places: dict[Any, float] = {word: float(place) for place, word in enumerate(known)}
    return np.array([places.get(word, np.nan) for word in texts.to_list()])


def _floats(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
