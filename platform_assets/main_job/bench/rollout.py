"""The rollout verdict's error rates and how soon it stops, by simulated rollouts, against the rule of a fixed number of requests before it.

Worst cases are simulated, not likely ones: releases that do harm exactly at a declared limit, where each wrong verdict is most frequent.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.main_job.bench.core import Row, describe_row, judge_row
from platform_assets.specs.looks import LATENCY_BOUNDS, Tally
from platform_assets.specs.model import RolloutSpec
from platform_assets.specs.records import ArmFigures
from platform_assets.stages.release.evidence import Evidence, Judge, plan_stages

if TYPE_CHECKING:
    from rich.console import Console

RUNS, QUICK_RUNS = 1000, 100
_MOST = 6000  # requests of the challenger in one simulated rollout; what is undecided then is inconclusive
_STEP = 10  # requests between two looks
_FAST, _SLOW = 30, 60  # places of an ordinary and a slow request in LATENCY_BOUNDS

Harm = dict[str, float]
Rollout = Callable[[np.random.Generator, Harm], tuple[str, int]]


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Simulate rollouts with the default declaration; shares of wrong verdicts and requests until the verdict, by both rules."""
    runs, spec = QUICK_RUNS if quick else RUNS, RolloutSpec()
    console.print(f"rollout verdict, {runs:,} simulated rollouts a row ...")
    at_limits = {"errors": spec.max_error_share, "slow": spec.max_slow_share, "disagreement": spec.max_disagreement}

    def both(harm: Harm, outcome: str) -> tuple[tuple[float, float], tuple[float, float]]:
        return _share(run_sequential, harm, outcome, runs=runs), _share(run_fixed, harm, outcome, runs=runs)

    rows = [_judge_rate("false rollback, a release at every limit", both(at_limits, "rolled_back"), must=spec.false_rollback)]
    for name, harm in {
        "failing at the limit of 1 %": {"errors": spec.max_error_share},
        "failing twice as often as allowed": {"errors": 2 * spec.max_error_share},
        "slow at the limit of 5 %": {"slow": spec.max_slow_share},
        "disagreeing at the limit of 50 %": {"disagreement": spec.max_disagreement},
    }.items():
        rows.append(_judge_rate(f"false promotion, a release {name}", both(harm, "live"), must=spec.false_promotion))
    for name, harm, outcome in (
        ("a flawless release", {}, "live"),
        ("a release with 0.1 % of errors and 10 % of other answers", {"errors": 0.001, "disagreement": 0.1}, "live"),
        ("a release that fails on 10 %", {"errors": 0.1}, "rolled_back"),
        ("a release that fails on 50 %", {"errors": 0.5}, "rolled_back"),
    ):
        (share, requests), (fixed_share, fixed_requests) = both(harm, outcome)
        what = f"{name}: {outcome.replace('_', ' ')}"
        rows += [
            describe_row(f"{what}, share", value=share, unit="share", against=fixed_share),
            describe_row(f"{what}, requests of the challenger until then", value=requests, unit="requests", against=fixed_requests),
        ]
    needed = fixed_sample_size(spec.max_error_share, rate=spec.false_promotion)
    flawless = _share(run_sequential, {}, "live", runs=20)[1]
    rows.append(
        judge_row(
            "a flawless release: requests until it is live", value=flawless, unit="requests", must=round(1.5 * needed), better="lower",
            aim=needed, against=f"{needed}, the fewest of any fixed sample with the same rate of false promotion",
        )
    )  # fmt: skip
    return rows


def _judge_rate(what: str, found: tuple[tuple[float, float], tuple[float, float]], *, must: float) -> Row:
    (share, _), (fixed, _) = found
    return judge_row(what, value=share, unit="share", must=must, better="lower", against=f"{fixed:g} by the fixed sample of before")


def _share(run: Rollout, harm: Harm, outcome: str, *, runs: int) -> tuple[float, float]:
    random = np.random.default_rng(1)
    found = [run(random, harm) for _ in range(runs)]
    ended = [requests for name, requests in found if name == outcome]
    return round(len(ended) / runs, 4), round(fmean(ended), 1) if ended else float("nan")


def run_sequential(random: np.random.Generator, harm: Harm) -> tuple[str, int]:
    """Simulate one rollout by the verdict in force; return how it ended and the challenger's requests."""
    spec = RolloutSpec()
    judge, total = Judge(spec), 0
    for stage in plan_stages(spec):
        judge.begin(stage)
        figures = _Figures()
        while (decision := judge.look(figures.evidence(stage.mode), seconds=float(total))[0]) == "wait":
            if total >= _MOST:
                return "inconclusive", total
            figures.play(random, harm, _STEP)
            total += _STEP
        if decision == "roll_back":
            return "rolled_back", total
    return "live", total


class _Figures:
    """Figures of one stage, played."""

    def __init__(self) -> None:
        self.seen = self.failed = self.slow = self.other = 0

    def play(self, random: np.random.Generator, harm: Harm, count: int) -> None:
        failed = int(random.binomial(count, harm.get("errors", 0.0)))
        self.seen, self.failed = self.seen + count, self.failed + failed
        self.slow += int(random.binomial(count - failed, harm.get("slow", 0.0)))
        self.other += int(random.binomial(count, harm.get("disagreement", 0.0)))

    def evidence(self, mode: str) -> Evidence:
        compared = self.seen if mode == "shadow" else 0
        champion = _arm("old", self.seen, failed=0, slow=0)
        return Evidence(
            champion, _arm("new", self.seen, failed=self.failed, slow=self.slow), compared, self.other if compared else 0, Tally()
        )


def _arm(version: str, requests: int, *, failed: int, slow: int) -> ArmFigures:
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    counts[_FAST], counts[_SLOW] = requests - failed - slow, slow
    p99 = 1000 * LATENCY_BOUNDS[_FAST]
    return ArmFigures(version, requests, requests, failed, p99, p99, tuple(counts))


def run_fixed(random: np.random.Generator, harm: Harm) -> tuple[str, int]:
    """Simulate the rule of before: 200 requests in shadow, 100 in each of two canaries; shares held against the limits once they are there.

    Its test of the p99 spoke from 1000 requests on, so that a slow release was never found in so few; it ended early on errors alone.
    """
    spec, total = RolloutSpec(), 0
    for mode, wanted in (("shadow", 200), ("canary", 100), ("canary", 100)):
        figures = _Figures()
        while figures.seen < wanted:
            figures.play(random, harm, _STEP)
            total += _STEP
            if figures.failed > spec.max_error_share * wanted:
                return "rolled_back", total
        if mode == "shadow" and figures.other > spec.max_disagreement * wanted:
            return "rolled_back", total
    return "live", total


def fixed_sample_size(limit: float, *, rate: float) -> int:
    """Return the fewest requests after which no error at all shows, at this rate of false promotion, that a share is below the limit."""
    return int(np.ceil(np.log(rate) / np.log1p(-limit)))
