"""What the figures of two versions say of a challenger: counts by criterion, their evidence in both directions, and what follows from it.

Criteria: errors, slow (requests), disagreement (rows compared in shadow), worse (rows whose label came, of those that one of the two gets
right). A criterion whose limit is 1 is not tested. Two kinds of wrong verdict are bounded, however often one looks:

- rolling a release back that keeps every limit, by `false_rollback`: shared out evenly over the criteria. Each one's evidence is the mean
  over the stages of what has been seen since that stage began, so that a flawless shadow does not hide a canary that fails;
- letting one go live that breaks a limit, by `false_promotion`: every criterion has to pass, so each gets the whole of it (Berger 1982,
  Technometrics 24, 295). What proves is the reply path: errors and latency of all canary steps together; agreement shows in shadow.
  Labels come when they come: they roll back, and nothing waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from platform_assets.specs.looks import Look, LookLog, Tally, slower_than
from platform_assets.specs.records import ArmFigures
from platform_assets.stages.release.sequential import evidence_above, evidence_below

if TYPE_CHECKING:
    from platform_assets.specs.model import RolloutSpec

Decision = Literal["wait", "advance", "roll_back"]
Mode = Literal["shadow", "canary"]
ERRORS, SLOW, DISAGREEMENT, WORSE = "errors", "slow", "disagreement", "worse"
_TIMED_FROM = 10  # requests of the champion; before that its p99 says nothing
_NOISE_MS = 5.0  # scheduling noise of a shared machine
_LOG10 = math.log(10)
NOTHING = Tally()


@dataclass(frozen=True)
class Evidence:
    """What a target measured since the last change of traffic, and the labels that came during the rollout."""

    champion: ArmFigures
    challenger: ArmFigures
    compared_rows: int = 0
    disagreements: int = 0
    labelled: Tally = NOTHING


@dataclass(frozen=True)
class Stage:
    """One step of a rollout."""

    name: str
    mode: Mode
    percent: int


def plan_stages(rollout: RolloutSpec) -> tuple[Stage, ...]:
    """Return shadow, then the canary's steps."""
    return (Stage("shadow", "shadow", 0), *(Stage(f"canary {share} %", "canary", share) for share in rollout.canary_percent))


class Judge:
    """Follows one rollout, look by look."""

    def __init__(self, rollout: RolloutSpec) -> None:
        self._rollout = rollout
        self._stages = plan_stages(rollout)
        self._stage = self._stages[0]
        self._before: list[tuple[Mode, dict[str, Tally]]] = []  # of the stages before this one
        self._tallies: dict[str, Tally] = {}  # of this stage
        self._seen: tuple[int, ...] = ()  # the challenger's latency counts at the last look
        self._slow_ms: float | None = None
        self.looks: list[Look] = []
        self.limits = {name: limit for name, limit in _limits(rollout).items() if limit < 1.0}
        self._against_passes = math.log(max(len(self.limits), 1) / rollout.false_rollback)
        self._in_favour_passes = math.log(1 / rollout.false_promotion)

    def begin(self, stage: Stage) -> None:
        """Start a stage, with fresh figures."""
        if self._tallies:
            self._before.append((self._stage.mode, self._tallies))
        self._stage, self._tallies, self._seen = stage, {}, ()

    def look(self, evidence: Evidence, *, seconds: float) -> tuple[Decision, str]:
        """Take in the figures of now; decide, and say why."""
        before = self._tallies
        self._count(evidence)
        against = {name: self._against(name) for name in self._tallies}
        in_favour = {name: evidence_below(t.hits, trials=t.trials, limit=self.limits[name]) for name, t in self._proving().items()}
        if self._tallies != before or not self.looks:
            self.looks.append(
                Look(self._stage.name, round(seconds, 3), self._slow_ms, dict(self._tallies), _decimal(against), _decimal(in_favour))
            )
        return self._decide(evidence, against=against, in_favour=in_favour)

    def log(self) -> LookLog:
        """Return every look so far with what was declared; thresholds as decimal logarithms."""
        return LookLog(
            limits=self.limits,
            false_rollback=self._rollout.false_rollback,
            false_promotion=self._rollout.false_promotion,
            against_passes=self._against_passes / _LOG10,
            in_favour_passes=self._in_favour_passes / _LOG10,
            looks=tuple(self.looks),
        )

    def _count(self, evidence: Evidence) -> None:
        challenger = evidence.challenger
        found = {ERRORS: Tally(challenger.requests, challenger.errors), SLOW: self._tallies.get(SLOW, NOTHING)}
        if self._slow_ms is not None:
            # Held against a limit that was known before these requests came: what they do cannot move it.
            now, then = (slower_than(counts, milliseconds=self._slow_ms) for counts in (challenger.latency_counts, self._seen))
            found[SLOW] += now - then
        self._seen = challenger.latency_counts
        if evidence.champion.requests >= _TIMED_FROM:
            p99 = evidence.champion.latency_ms_p99
            self._slow_ms = max(self._rollout.max_latency_ratio * p99, p99 + _NOISE_MS)
        if self._stage.mode == "shadow":
            found[DISAGREEMENT] = Tally(evidence.compared_rows, evidence.disagreements)
        if evidence.labelled.trials:
            found[WORSE] = evidence.labelled
        self._tallies = {name: tally for name, tally in found.items() if name in self.limits}

    def _against(self, name: str) -> float:
        """Logarithm of the mean, over the stages, of the evidence since each began; one that is still to come counts as one.

        Labels are told of the whole rollout at every look, so theirs is one test.
        """
        limit, seen = self.limits[name], self._tallies[name]
        logs = [evidence_above(seen.hits, trials=seen.trials, limit=limit)]
        if name == WORSE:
            return logs[0]
        for _, tallies in reversed(self._before):
            seen += tallies.get(name, NOTHING)
            logs.append(evidence_above(seen.hits, trials=seen.trials, limit=limit))
        logs += [0.0] * (len(self._stages) - len(logs))
        highest = max(logs)
        return highest + math.log(sum(math.exp(one - highest) for one in logs) / len(logs))

    def _proves(self, mode: Mode) -> bool:
        """Whether errors and latency of this mode count for going live: shadow's only where there is no canary."""
        return mode == "canary" or not self._rollout.canary_percent

    def _proving(self) -> dict[str, Tally]:
        """Tallies that must show the challenger within its limits before the next stage, or before going live."""
        names = [name for name in (ERRORS, SLOW) if name in self.limits and self._proves(self._stage.mode)]
        if self._stage.mode == "shadow" and DISAGREEMENT in self.limits:
            names.append(DISAGREEMENT)
        counted = [self._tallies, *(tallies for mode, tallies in self._before if self._proves(mode))]
        return {name: sum((tallies.get(name, NOTHING) for tallies in counted), NOTHING) for name in names}

    def _decide(self, evidence: Evidence, *, against: dict[str, float], in_favour: dict[str, float]) -> tuple[Decision, str]:
        challenger, stage = evidence.challenger, self._stage
        for name, value in against.items():
            if value >= self._against_passes:
                return "roll_back", self._blame(name, evidence)
        if challenger.requests < self._rollout.min_requests:
            wanted = self._rollout.min_requests
            return "wait", f"{challenger.version} answered {challenger.requests} of at least {wanted} requests in {stage.name}."
        needed = [DISAGREEMENT] if stage != self._stages[-1] else list(in_favour)
        if open_still := [name for name in needed if name in in_favour and in_favour[name] < self._in_favour_passes]:
            return "wait", f"{challenger.version} in {stage.name}: {'; '.join(self._lacking(open_still, in_favour))}."
        shown = ", ".join(f"{tally.hits} of {tally.trials} {name}" for name, tally in self._proving().items()) or "no limit to show"
        return "advance", f"{challenger.version} passed {stage.name} after {challenger.requests} requests: {shown}."

    def _lacking(self, names: list[str], in_favour: dict[str, float]) -> Iterator[str]:
        for name in names:
            tally = self._proving()[name]
            yield (
                f"{tally.hits} of {tally.trials} {_NAMES[name]} do not show yet that at most {self.limits[name]:.2%} are "
                f"(evidence {math.exp(min(in_favour[name], 50.0)):.2g}, {1 / self._rollout.false_promotion:.3g} is asked)"
            )

    def _blame(self, name: str, evidence: Evidence) -> str:
        old, new, tally = evidence.champion.version, evidence.challenger.version, self._tallies[name]
        limit, where = f"at most {self.limits[name]:.2%} may", self._stage.name
        if name == ERRORS:
            return f"{new} failed on {tally.hits} of {tally.trials} requests in {where}; {limit}."
        if name == SLOW:
            return (
                f"{new} took longer than {self._slow_ms:.2f} ms on {tally.hits} of {tally.trials} requests in {where}, "
                f"the champion {old} has a p99 of {evidence.champion.latency_ms_p99:.2f} ms; {limit}."
            )
        if name == DISAGREEMENT:
            return f"{new} answered {tally.hits} of {tally.trials} rows otherwise than {old} in {where}; {limit}."
        return f"of {tally.trials} newly labelled rows that one of the two got right, {old} won {tally.hits} against {new}; {limit}."


_NAMES = {ERRORS: "failed requests", SLOW: "slow requests", DISAGREEMENT: "rows answered otherwise"}


def _limits(rollout: RolloutSpec) -> dict[str, float]:
    return {
        ERRORS: rollout.max_error_share, SLOW: rollout.max_slow_share, DISAGREEMENT: rollout.max_disagreement,
        WORSE: rollout.max_worse_share,
    }  # fmt: skip


def _decimal(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value / _LOG10, 4) for name, value in values.items()}
