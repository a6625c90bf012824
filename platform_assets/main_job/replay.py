"""`falaj drift replay`: one policy over one table's past, beside never, always and every-nth retraining in the same run.

Every model answers a window before its labels are known, then learns. All CPU that the policy causes is on its bill: detectors, the
comparison of old and new, warm starts and trainings from scratch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from platform_assets.specs.model import PayoffSpec
from platform_assets.stages.monitoring.feed import FeedPast, find_faults, remember_feed
from platform_assets.stages.replay import booster
from platform_assets.stages.replay.stream import Stream
from platform_assets.stages.retraining.payoff import Attempt, Choice, Labelled, Situation, choose

PLAIN = (2, 3, 4, 6, 8, 12, 16)  # every so many windows: the schedules a policy must beat at equal cost
_BEHIND = 0.02  # points of score from which a champion counts as behind a model trained just now
_LEAST_WON = 0.002  # points of score; where always retraining wins less than this there is no gain to share


@dataclass
class Bill:
    """CPU seconds of the policy, by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def count(self, what: str) -> Iterator[None]:
        """Count what happens inside."""
        began = time.process_time()
        yield
        self.add(what, time.process_time() - began)

    def add(self, what: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.seconds.values())


class Baselines:
    """Models trained from scratch after each window on the newest history, what each cost, and how each answers later windows."""

    def __init__(self, stream: Stream, *, tick: Callable[[], None] = lambda: None) -> None:
        booster.warm_up()
        self.stream, self._models = stream, dict[int, tuple[booster.Model, float]]()
        self._tick = tick
        self.first = stream.history_windows

    def model(self, window: int) -> tuple[booster.Model, float]:
        """Return the model trained on the history that ends before this window, and its CPU seconds."""
        if window not in self._models:
            stream = self.stream
            began = time.process_time()
            values, targets = stream.rows(window - stream.history_windows, window)
            model = booster.fit(values, targets, kind=stream.kind, classes=len(stream.classes))
            self._models[window] = (model, time.process_time() - began)
            self._tick()
        return self._models[window]

    def model_without(self, window: int, faulty: set[int]) -> tuple[booster.Model, float]:
        """Return such a model that has learnt nothing from faulty windows."""
        stream = self.stream
        read = range(window - stream.history_windows, window)
        if faulty.isdisjoint(read):
            return self.model(window)
        parts = [stream.rows(healthy) for healthy in read if healthy not in faulty]
        began = time.process_time()
        values, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        model = booster.fit(values, targets, kind=stream.kind, classes=len(stream.classes))
        return model, time.process_time() - began

    def every(self, step: int) -> tuple[np.ndarray, float, int]:
        """Return the score of each window, CPU seconds and trainings of retraining every `step` windows; 0: never."""
        scores, seconds, trainings, model = [], 0.0, 0, self.model(self.first)[0]
        for window in range(self.first, self.stream.windows):
            if step and window > self.first and (window - self.first) % step == 0:
                model, cost = self.model(window)
                seconds, trainings = seconds + cost, trainings + 1
            values, targets = self.stream.rows(window)
            answers = booster.answer(model, booster.find_leaves(model, values))
            scores.append(booster.hits(answers, targets, kind=self.stream.kind).mean())
        return np.array(scores), seconds, trainings

    @cached_property
    def spread(self) -> float:
        """Variance of an amount over the windows that are replayed; 1 for classes."""
        if self.stream.kind != "regression":
            return 1.0
        return float(np.var(self.stream.rows(self.first, self.stream.windows)[1]))

    def score(self, means: np.ndarray) -> float:
        """Turn mean hits into the score that is told: accuracy, or R2."""
        mean = float(np.mean(means))
        return 1 + mean / self.spread if self.stream.kind == "regression" else mean


@dataclass
class Played:
    """What came of a policy: the score of each window, its choices, ledger and bill."""

    scores: list[float] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    ledger: list[Attempt] = field(default_factory=list)
    bill: Bill = field(default_factory=Bill)
    faulty: dict[int, str] = field(default_factory=dict)


class FeedGate:
    """Holds each window against what the feed showed when it was healthy."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        categories = [stream.columns[place] for place in stream.categories]
        history, _ = stream.rows(0, stream.history_windows)
        self._past: FeedPast = remember_feed(self._columns(history), window_rows=stream.window_rows, categories=categories)

    def fault(self, values: np.ndarray) -> str | None:
        """Say what is wrong with a window; None where nothing is."""
        return "; ".join(fault.sentence for fault in find_faults(self._past, self._columns(values))) or None

    def _columns(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._stream.columns, values.T, strict=True))


def play(baselines: Baselines, spec: PayoffSpec) -> Played:
    """Let the policy decide after every window; what it decides is made and answers the next one."""
    stream, played = baselines.stream, Played()
    champion, unit = baselines.model(baselines.first)
    before: booster.Model | None = None  # the champion that the newest attempt replaced, until the next window tells which is better
    trained_at, labelled = baselines.first, list[Labelled]()
    units = [unit]
    with played.bill.count("detector"):
        gate = FeedGate(stream)
    for window in range(baselines.first, stream.windows):
        values, targets = stream.rows(window)
        leaves = booster.find_leaves(champion, values)
        answers = booster.answer(champion, leaves)
        played.scores.append(float(booster.hits(answers, targets, kind=stream.kind).mean()))
        if window + 1 == stream.windows:
            break
        with played.bill.count("detector"):
            fault = gate.fault(values)
        if fault is not None:
            played.faulty[window] = fault
            played.choices.append(Choice("keep", 0.0, 0.0, f"data at fault, nothing is learnt from it: {fault}"))
            continue
        with played.bill.count("evidence"):
            lost = booster.losses(answers, targets, kind=stream.kind)
            labelled.append(Labelled(window, float(lost.mean()), float(lost.std() / np.sqrt(len(lost)))))
            if before is not None:
                reached = leaves if before.trees is champion.trees else booster.find_leaves(before, values)
                old = float(booster.losses(booster.answer(before, reached), targets, kind=stream.kind).mean())
                newest = replace(played.ledger[-1], gain=(old - labelled[-1].loss) / old if old else 0.0)
                played.ledger[-1] = newest
                if newest.how == "retrain" and (newest.gain or 0.0) <= 0:
                    champion, leaves = before, reached  # it did not help: the champion stays
                before = None
            now = Situation(
                window=window, elapsed=window - baselines.first, age=window + 1 - trained_at, labelled=tuple(labelled),
                unit=float(np.mean(units)), spent=played.bill.total,
            )  # fmt: skip
            choice = choose(now, ledger=played.ledger, spec=spec)
        played.choices.append(choice)
        if choice.how == "retrain":
            before = champion
            champion, cost = baselines.model_without(window + 1, set(played.faulty))
            played.bill.add("retrain", cost)
            units.append(cost)
            played.ledger.append(Attempt("retrain", window, window + 1 - trained_at, cost))
            trained_at, labelled = window + 1, []
        elif choice.how == "refresh":
            before = champion
            with played.bill.count("refresh"):
                began = time.process_time()
                champion = booster.refresh(champion, leaves, targets, keep=spec.refresh_keeps or 0.0)
                played.ledger.append(Attempt("refresh", window, window + 1 - trained_at, time.process_time() - began))
    return played


def compare(stream: Stream, spec: PayoffSpec, *, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Replay the policy and all plain schedules; return what the command prints and writes.

    `gain`: share of what always retraining wins over never; None where it wins nothing. `cost`: CPU of the policy against always.
    """
    baselines = Baselines(stream, tick=tick)
    always, always_seconds, _ = baselines.every(1)
    never, _, _ = baselines.every(0)
    played = play(baselines, spec)
    won = baselines.score(always) - baselines.score(never)

    def gain(scores: np.ndarray) -> float | None:
        return round((baselines.score(scores) - baselines.score(never)) / won, 4) if won > _LEAST_WON else None

    plain = [(every, *baselines.every(every)) for every in PLAIN]
    schedules = [{"every": every, "gain": gain(scores), "cost": round(spent / always_seconds, 4)} for every, scores, spent, _ in plain]
    cost = played.bill.total / always_seconds
    scores = np.array(played.scores)
    retrained = [past for past in played.ledger if past.how == "retrain"]
    return {
        "kind": stream.kind,
        "metric": "r2" if stream.kind == "regression" else "accuracy",
        "rows": len(stream.targets),
        "window_rows": stream.window_rows,
        "windows": stream.windows,
        "history_windows": stream.history_windows,
        "left_out": [{"column": suspect.column, "why": suspect.why} for suspect in stream.left_out],
        "rows_dropped": stream.rows_dropped,
        "policy": spec.model_dump(mode="json"),
        "score": round(baselines.score(scores), 4),
        "score_never": round(baselines.score(never), 4),
        "score_always": round(baselines.score(always), 4),
        "gain": gain(scores),
        "cost": round(cost, 4),
        "plain_gain": _plain_gain(schedules, cost) if won > _LEAST_WON else None,
        "schedules": schedules,
        "trainings": len(retrained),
        "refreshes": len(played.ledger) - len(retrained),
        "delay": _delay((always - scores) / baselines.spread),
        "false_alarms": sum(past.gain is not None and past.gain <= 0 for past in retrained),
        "faulty_windows": [{"window": window, "why": why} for window, why in played.faulty.items()],
        "cpu_seconds": {"always": round(always_seconds, 3), **{what: round(spent, 3) for what, spent in played.bill.seconds.items()}},
        "by_window": [
            {
                "window": baselines.first + place,
                "since": stream.times[baselines.first + place],
                "score": round(baselines.score(scores[place : place + 1]), 4),
                "never": round(baselines.score(never[place : place + 1]), 4),
                "always": round(baselines.score(always[place : place + 1]), 4),
                "decision": played.choices[place].how if place < len(played.choices) else "end",
                "why": played.choices[place].sentence if place < len(played.choices) else "the table ends here",
            }
            for place in range(len(scores))
        ],
    }


def _plain_gain(schedules: list[dict[str, Any]], cost: float) -> float:
    """Gain of a plain schedule of this cost, between its neighbours by proportion; never costs and wins nothing, always all."""
    points = np.array(sorted([(0.0, 0.0), (1.0, 1.0), *((row["cost"], row["gain"]) for row in schedules)]))
    return round(float(np.interp(cost, points[:, 0], points[:, 1])), 4)


def _delay(behind: np.ndarray) -> float:
    """Mean windows that the champion stays behind a model trained just now, each time that it falls behind; 0 where it never does."""
    late = np.concatenate([[False], behind > _BEHIND])
    falls = int(np.count_nonzero(~late[:-1] & late[1:]))
    return round(float(late.sum()) / falls, 2) if falls else 0.0
