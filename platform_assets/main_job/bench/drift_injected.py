"""Area `drift`: drifts put into shuffled windows of real bookings, each kind at the size that costs the model two points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from platform_assets.main_job.bench.core import Row, judge_row
from platform_assets.main_job.bench.drift import read_stream
from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, judge_labels, report_window
from platform_assets.stages.monitoring.importance import share_importance
from platform_assets.stages.monitoring.reference import Reference, build_reference
from platform_assets.stages.replay import booster

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.specs.records import WindowReport
    from platform_assets.stages.replay.stream import Stream

KINDS = ("abrupt", "gradual", "few columns", "correlation only", "label shift", "missing surge", "new category")
SCATTERED = "scattered cells"  # of eight columns, beside what is asked for
COSTS = 0.02  # accuracy that a drift must cost
ROWS = 2000
_MUST_FIND = 0.95
_HISTORY = 10  # windows that the model learns from
_UNSEEN = 5
_SIZES = np.geomspace(0.005, 1.0, 24)  # share of rows
_MOVED, _FEW = 8, 2
_NEW = 1e6  # number of a category that the history does not have


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Return the share of pairs of windows in which each kind of drift is found, and what is said of a harmless one."""
    console.print("injecting drifts")
    stream = read_stream("hotel_bookings")
    found: dict[str, list[bool]] = {kind: [] for kind in (*KINDS, SCATTERED)}
    told: dict[str, list[str]] = {kind: [] for kind in found}
    harmless: list[WindowReport] = []
    for seed in range(1, 2 if quick else 4):
        bed = lay_bed(stream, seed=seed)
        for kind in found:
            size, cost = size_of(bed, kind)
            told[kind].append(f"{cost:.1%}")
            found[kind] += found_within_two(bed, kind, size, pairs=6 if quick else 20)
        harmless += [bed.report(move_unused(bed, window)) for window in range(4 if quick else 20)]
    rows = [
        judge_row(
            f"injected, found within two windows of {ROWS} rows: {kind}, costs {', '.join(told[kind])}, {len(flags)} pairs",
            value=round(float(np.mean(flags)), 4), unit="share", must=_MUST_FIND, better="higher",
        )
        for kind, flags in found.items()
    ]  # fmt: skip
    rows.append(
        judge_row(
            f"harmless drift (a column that the model does not use), reported, {len(harmless)} windows",
            value=round(float(np.mean([bool(report.moved) for report in harmless])), 4), unit="share", must=_MUST_FIND, better="higher",
        )
    )  # fmt: skip
    asked = round(float(np.mean([report.drifted for report in harmless])), 4)
    rows.append(judge_row("the same, asks for a retraining", value=asked, unit="share", must=0.0, better="lower"))
    return rows


@dataclass(frozen=True, eq=False)
class Bed:
    """A model, its importance and its drift reference over shuffled rows, and the rows that are left to make windows of."""

    stream: Stream
    model: booster.Model
    reference: Reference
    importance: dict[str, float]
    spec: MonitoringSpec
    values: np.ndarray
    targets: np.ndarray
    ranked: tuple[int, ...]  # columns, the most important first

    @property
    def windows(self) -> int:
        """Whole windows among the rows that are left."""
        return len(self.values) // ROWS

    def rows(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of a window's values, and its targets."""
        part = slice(window * ROWS, (window + 1) * ROWS)
        return self.values[part].copy(), self.targets[part]

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Return probabilities of both classes, [rows, 2]."""
        found = booster.answer(self.model, booster.find_leaves(self.model, values))
        return np.column_stack([1 - found, found])

    def report(self, values: np.ndarray, *, index: int = 0) -> WindowReport:
        """Hold rows against the reference."""
        return report_window(
            self.reference, as_table(self.stream, values), window=Window(index, 0, len(values) - 1, ("bench",)),
            schema=schema_of(self.stream), probabilities=self.answer(values), importance=self.importance, spec=self.spec,
        )  # fmt: skip

    def finds(self, values: np.ndarray, targets: np.ndarray) -> bool:
        """Tell whether a window is called drifted, its labels known."""
        shift = judge_labels(self.reference, as_words(targets, self.stream.classes), spec=self.spec)
        return self.report(values).drifted or bool(shift and shift.drifted)


def lay_bed(stream: Stream, *, seed: int) -> Bed:
    """Shuffle a stream, train a model on ten windows, and summarise them as its reference."""
    order = np.random.default_rng(seed).permutation(len(stream.values))
    values, targets = stream.values[order], stream.targets[order]
    past, unseen = slice(0, _HISTORY * ROWS), slice(_HISTORY * ROWS, (_HISTORY + _UNSEEN) * ROWS)
    model = booster.fit(values[past], targets[past], kind="binary", classes=2)
    answered = [booster.answer(model, booster.find_leaves(model, values[part])) for part in (past, unseen)]
    shares = [np.column_stack([1 - found, found]) for found in answered]
    importance = importance_of(stream, model, values[unseen], targets[unseen])
    spec = MonitoringSpec(window_rows=ROWS)
    train = as_table(stream, values[past]).append_column(stream.target, as_words(targets[past], stream.classes))
    reference = build_reference(
        train, schema=schema_of(stream), probabilities=shares[0], spec=spec, importance=importance, unseen=shares[1]
    )  # fmt: skip
    ranked = sorted(range(len(stream.columns)), key=lambda place: -importance[stream.columns[place]])
    left = (_HISTORY + _UNSEEN) * ROWS
    return Bed(stream, model, reference, importance, spec, values[left:], targets[left:], tuple(ranked))


def inject(bed: Bed, kind: str, size: float, values: np.ndarray, targets: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows with a drift of one kind and size in them; rows keep their labels, but where the kind is label shift."""
    rng = np.random.default_rng(seed)
    moved = values.copy()
    hit = rng.random(len(values)) < size
    if kind == "label shift":
        return _shift_labels(values, targets, size, rng)
    if kind == SCATTERED:
        for column in bed.ranked[:_MOVED]:
            cells = rng.random(len(values)) < size
            moved[cells, column] = bed.values[rng.integers(0, len(bed.values), int(cells.sum())), column] + np.nanstd(bed.values[:, column])
        return moved, targets
    if kind in ("abrupt", "gradual"):
        return _move(bed, moved, bed.ranked[:_MOVED], size, rng), targets
    if kind == "few columns":
        return _move(bed, moved, bed.ranked[:_FEW], size, rng), targets
    if kind == "correlation only":
        places = np.flatnonzero(hit)
        for column in bed.ranked[:_MOVED]:
            moved[places, column] = moved[rng.permutation(places), column]
    elif kind == "missing surge":
        for column in bed.ranked[:_FEW]:
            moved[hit, column] = np.nan
    else:
        moved[hit, next(column for column in bed.ranked if column in bed.stream.categories)] = _NEW
    return moved, targets


def move_unused(bed: Bed, window: int) -> np.ndarray:
    """Return a window in which a column that the model does not lean on at all is three deviations from where it was."""
    values, _ = bed.rows(window)
    amounts = [place for place in reversed(bed.ranked) if place not in bed.stream.categories and np.nanstd(bed.values[:, place]) > 0]
    values[:, amounts[0]] += 3 * np.nanstd(bed.values[:, amounts[0]])
    return values


def size_of(bed: Bed, kind: str) -> tuple[float, float]:
    """Return the smallest size that costs COSTS of accuracy on ten windows, and what it costs; the largest one where none does."""
    part = slice(0, 10 * ROWS)
    values, targets = bed.values[part], bed.targets[part]
    whole = _accuracy(bed, values, targets)
    cost = 0.0
    for size in _SIZES:
        cost = whole - _accuracy(bed, *inject(bed, kind, float(size), values, targets, seed=1))
        if cost >= COSTS:
            return float(size), cost
    return float(_SIZES[-1]), cost


def found_within_two(bed: Bed, kind: str, size: float, *, pairs: int) -> list[bool]:
    """Tell for pairs of windows whether one of both is called drifted; a gradual drift grows through the first."""
    found = []
    for pair in range(min(pairs, bed.windows // 2)):
        windows = []
        for step in (0, 1):
            values, targets = bed.rows(2 * pair + step)
            changed = inject(bed, kind, size, values, targets, seed=100 * pair + step)
            if kind == "gradual" and step == 0:
                part = np.random.default_rng(pair).random(len(values)) < np.linspace(0, 1, len(values))
                changed = np.where(part[:, None], changed[0], values), targets
            windows.append(changed)
        found.append(any(bed.finds(*window) for window in windows))
    return found


def as_table(stream: Stream, values: np.ndarray) -> pa.Table:
    """Return rows as a table: categories as words, null where missing."""
    return pa.table(
        {
            name: pa.array(_words(values[:, place]), pa.string()) if place in stream.categories else pa.array(values[:, place])
            for place, name in enumerate(stream.columns)
        }
    )


def schema_of(stream: Stream) -> FeatureSchema:
    """Return the stream's columns as a model's features."""
    kinds: Any = {place: "category" if place in stream.categories else "numeric" for place in range(len(stream.columns))}
    features = tuple(Feature(name, kinds[place], "", "") for place, name in enumerate(stream.columns))
    return FeatureSchema(features, stream.target, stream.classes, "", "")


def as_words(targets: np.ndarray, classes: tuple[str, ...]) -> pa.ChunkedArray:
    """Return class numbers as class names."""
    return pa.chunked_array([np.array(classes, dtype=object)[targets.astype(int)]], pa.string())


def _words(numbers: np.ndarray) -> np.ndarray:
    distinct, places = np.unique(numbers, return_inverse=True)
    names = np.array([None if np.isnan(number) else f"c{int(number)}" for number in distinct], dtype=object)
    return np.asarray(names[places])


def _move(bed: Bed, values: np.ndarray, columns: tuple[int, ...], size: float, rng: np.random.Generator) -> np.ndarray:
    """Move every number up by a share of its ranks, onto values that its column has, and as large a share of categories anywhere."""
    for column in columns:
        pool = bed.values[:, column]
        pool = np.sort(pool[np.isfinite(pool)])
        hit = rng.random(len(values)) < size
        if column in bed.stream.categories:
            values[hit, column] = rng.choice(np.unique(pool), int(hit.sum()))  # every value as likely: rare ones come often
            continue
        first, last = (np.searchsorted(pool, values[:, column], side=side) for side in ("left", "right"))
        rank = first + rng.random(len(values)) * (last - first) + size * len(pool)  # equal values share their ranks by chance
        values[:, column] = np.where(np.isfinite(values[:, column]), pool[np.minimum(rank, len(pool) - 1).astype(int)], np.nan)
    return values


def _shift_labels(values: np.ndarray, targets: np.ndarray, size: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    share = min(1.0, targets.mean() + size)
    wanted = rng.random(len(values)) < share
    places = np.where(wanted, rng.choice(np.flatnonzero(targets == 1), len(values)), rng.choice(np.flatnonzero(targets == 0), len(values)))
    return values[places], targets[places]


def _accuracy(bed: Bed, values: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean((bed.answer(values)[:, 1] > 0.5) == targets))  # noqa: PLR2004


def importance_of(stream: Stream, model: booster.Model, values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return permutation importance, by the very function that a release's profile is made with; amounts count as above their median."""
    classes = stream.classes or ("low", "high")
    features = tuple(Feature(name, "numeric", "", "") for name in stream.columns)
    schema = FeatureSchema(features, stream.target, classes, "", "")
    table = pa.table({**dict(zip(stream.columns, values.T, strict=True)), stream.target: as_words(targets, classes)})

    def answer(rows: pa.Table) -> np.ndarray:
        found = booster.answer(model, booster.find_leaves(model, np.column_stack([rows[name].to_numpy() for name in stream.columns])))
        return np.column_stack([1 - found, found])

    return share_importance(table, schema=schema, kind="binary", answer=answer)
