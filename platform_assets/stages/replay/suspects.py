"""Columns that no model may be given: the time in disguise, and columns that say the answer. Judged by data, never by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_CELLS = 256
_TOLD = 0.98  # share of the target's uncertainty that one column alone may not take away
_EXACT = 0.99999
_ORDER = 0.99  # rank correlation with the order of rows from which a column is the time
_FEWEST_VALUES = 2


@dataclass(frozen=True)
class Suspect:
    """A column that was left out, and why."""

    column: str
    why: str


def find_suspects(
    history: Mapping[str, np.ndarray], targets: np.ndarray, *, amounts: bool, rising: Mapping[str, np.ndarray]
) -> list[Suspect]:
    """Name the columns of a history that tell its targets, and those of the whole table (`rising`) that are the time in disguise.

    One column tells by itself when knowing it leaves less than 2 % of the target's variance, or errors; several numbers together when the
    target is a weighted sum of theirs.
    """
    found = [Suspect(name, "it is the time in another form") for name, values in rising.items() if _is_time(values)]
    found += [Suspect(name, "it alone tells the target") for name, values in history.items() if _tells(values, targets, amounts=amounts)]
    named = {suspect.column for suspect in found}
    if amounts:
        rest = {name: values for name, values in history.items() if name not in named}
        found += [Suspect(name, "the target is a sum of it and others") for name in _summands(rest, targets)]
    return list({suspect.column: suspect for suspect in found}.values())


def _is_time(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST_VALUES or known[0] == known[-1]:
        return False
    steps = np.diff(known)
    if (steps >= 0).all() or (steps <= 0).all():
        return True
    _, places, counts = np.unique(known, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # ties share their mean rank
    return abs(float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])) > _ORDER


def _tells(values: np.ndarray, targets: np.ndarray, *, amounts: bool) -> bool:
    """Hold the best guess from one column's cells, made on even rows, against odd rows."""
    finite = np.where(np.isfinite(values), values, -np.inf)
    distinct = np.unique(finite)
    edges = distinct if len(distinct) <= _CELLS else np.quantile(finite, np.linspace(0, 1, _CELLS), method="nearest")
    cells = np.searchsorted(np.unique(edges), finite, side="right")
    size = int(cells.max()) + 1
    even, odd = slice(0, None, 2), slice(1, None, 2)
    seen = np.bincount(cells[even], minlength=size)
    if amounts:
        means = np.bincount(cells[even], weights=targets[even], minlength=size) / np.maximum(seen, 1)
        guess = np.where(seen > 0, means, targets[even].mean())[cells[odd]]
        variance = np.mean((targets[odd] - targets[odd].mean()) ** 2)
        return bool(variance > 0 and 1 - np.mean((targets[odd] - guess) ** 2) / variance > _TOLD)
    classes = int(targets.max()) + 1
    counts = np.stack([np.bincount(cells[even], weights=targets[even] == place, minlength=size) for place in range(classes)])
    common = np.bincount(targets[even].astype(int)).argmax()
    guess = np.where(seen > 0, counts.argmax(axis=0), common)[cells[odd]]
    errors, blind = np.mean(guess != targets[odd]), np.mean(targets[odd] != common)
    return bool(blind > 0 and 1 - errors / blind > _TOLD)


def _summands(history: Mapping[str, np.ndarray], targets: np.ndarray) -> list[str]:
    names = [name for name, values in history.items() if np.isfinite(values).all() and values.std() > 0]
    if not names:
        return []
    scaled = np.column_stack([(history[name] - history[name].mean()) / history[name].std() for name in names])
    centred = targets - targets.mean()
    weights, *_ = np.linalg.lstsq(scaled, centred, rcond=None)
    left = centred - scaled @ weights
    if 1 - (left @ left) / max(float(centred @ centred), 1e-300) < _EXACT:
        return []
    return [name for name, weight in zip(names, weights, strict=True) if abs(weight) > 1e-3 * targets.std()]
