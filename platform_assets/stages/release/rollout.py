"""From shadow to live by evidence: what the figures of two versions say, and the steps that follow. Figures come from a serving target.

Evidence is counted in requests of the challenger; the sentence of a verdict names what decided it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from platform_assets.errors import ServingError
from platform_assets.specs.records import ArmFigures, RolloutVerdict

if TYPE_CHECKING:
    from platform_assets.ports import ServingTarget
    from platform_assets.specs.model import RolloutSpec

Decision = Literal["wait", "advance", "roll_back"]
_POLL_SECONDS = 0.2
_TAIL_SPEAKS_FROM = 1000  # requests; below this a p99 is a handful of values and one hiccup of the machine moves it
_SLOWER_MEDIAN = 1.5  # so a small sample counts as slow only where its median agrees with its tail
_NOISE_MS = 5.0  # scheduling noise of a shared machine


@dataclass(frozen=True)
class Evidence:
    """What a target measured since the last change of traffic."""

    champion: ArmFigures
    challenger: ArmFigures
    compared_rows: int = 0
    disagreements: int = 0

    @property
    def disagreement(self) -> float:
        """Share of compared rows whose predicted class differs."""
        return self.disagreements / self.compared_rows if self.compared_rows else 0.0


def judge(evidence: Evidence, *, rollout: RolloutSpec, mode: str) -> tuple[Decision, str]:
    """Decide on one stage (`shadow` or `canary`) and say why.

    Errors end it as soon as their share would break the limit even if every request still wanted succeeded; latency and
    disagreement are judged once the wanted requests are there.
    """
    champion, challenger = evidence.champion, evidence.challenger
    wanted = rollout.shadow_requests if mode == "shadow" else rollout.min_requests
    seen = max(challenger.requests, wanted)
    if challenger.errors > rollout.max_error_share * seen:
        return "roll_back", (
            f"{challenger.version} failed on {challenger.errors} of {challenger.requests} requests in {mode}; "
            f"at most {rollout.max_error_share:.2%} may fail."
        )
    if challenger.requests < wanted:
        return "wait", f"{challenger.version} answered {challenger.requests} of {wanted} requests in {mode}."
    if mode == "shadow" and evidence.compared_rows == 0:
        return "wait", f"{challenger.version} was compared on no row yet."
    if evidence.disagreement > rollout.max_disagreement:
        return "roll_back", (
            f"{challenger.version} answered {evidence.disagreements} of {evidence.compared_rows} rows otherwise than {champion.version}; "
            f"at most {rollout.max_disagreement:.0%} may differ."
        )
    if _is_slower(champion, challenger, limit=rollout.max_latency_ratio):
        return "roll_back", (
            f"{challenger.version} has a p99 of {challenger.latency_ms_p99:.2f} ms against {champion.latency_ms_p99:.2f} ms "
            f"of {champion.version}; at most {rollout.max_latency_ratio:g} times is allowed."
        )
    return "advance", f"{challenger.version} passed {mode}: {challenger.requests} requests, {challenger.errors} errors."


def _is_slower(champion: ArmFigures, challenger: ArmFigures, *, limit: float) -> bool:
    if champion.requests == 0:
        return False
    beyond = challenger.latency_ms_p99 > limit * champion.latency_ms_p99 and challenger.latency_ms_p99 > champion.latency_ms_p99 + _NOISE_MS
    return beyond and (challenger.requests >= _TAIL_SPEAKS_FROM or challenger.latency_ms_p50 > _SLOWER_MEDIAN * champion.latency_ms_p50)


@dataclass(frozen=True)
class _Stage:
    name: str
    mode: str
    percent: int


def run_rollout(
    target: ServingTarget,
    model: str,
    *,
    digest: str,
    rollout: RolloutSpec,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
    report: Callable[[str], None],
) -> RolloutVerdict:
    """Bring a release from shadow through the canary's steps to live, or restore what was live and prove it by reading it back.

    The first release goes live at once after the target's own check. Too little traffic within `rollout.timeout` leaves the
    champion in force: inconclusive. A release that the target refuses to load is rolled back. ServingError only where the
    target does not answer, or does not do what it was told.
    """
    version = digest[:12]
    old = _live(target, model)
    try:
        target.load(model, digest)
    except ServingError as error:
        if old is None:
            raise
        return _verdict("rolled_back", target, model, digest=digest, old=old, stages=("refused",), evidence=None, sentence=str(error))
    if old is None or old == digest:
        _set_and_prove(target, model, live=digest)
        why = f"{version} is the first release and passed its self-check." if old is None else f"{version} is live already."
        report(why)
        return _verdict("live", target, model, digest=digest, old=None, stages=("live",), evidence=None, sentence=why)
    return _walk(target, model, digest=digest, old=old, rollout=rollout, until=monotonic() + rollout.timeout.total_seconds(),
                 sleep=sleep, monotonic=monotonic, report=report)  # fmt: skip


def _walk(
    target: ServingTarget,
    model: str,
    *,
    digest: str,
    old: str,
    rollout: RolloutSpec,
    until: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
    report: Callable[[str], None],
) -> RolloutVerdict:
    steps = [_Stage("shadow", "shadow", 0), *(_Stage(f"canary {share} %", "canary", share) for share in rollout.canary_percent)]
    done: list[str] = []
    shadow: Evidence | None = None
    for stage in steps:
        target.set_traffic(model, live=old, challenger=digest, mode=stage.mode, percent=stage.percent)
        report(f"{digest[:12]} in {stage.name}")
        done.append(stage.name)
        decision, sentence, evidence = _watch(
            target, model, digest=digest, old=old, stage=stage, rollout=rollout, until=until, sleep=sleep, monotonic=monotonic
        )
        shadow = evidence if stage.mode == "shadow" else shadow
        report(sentence)
        if decision != "advance":
            _set_and_prove(target, model, live=old)
            back = decision == "roll_back"
            closing = f"{sentence} {old[:12]} was restored." if back else f"{sentence} The time for it is over, {old[:12]} stays."
            outcome: Literal["rolled_back", "inconclusive"] = "rolled_back" if back else "inconclusive"
            return _verdict(
                outcome, target, model, digest=digest, old=old, stages=tuple(done), evidence=evidence, sentence=closing, shadow=shadow
            )
    _set_and_prove(target, model, live=digest)
    report(f"{digest[:12]} is live")
    return _verdict("live", target, model, digest=digest, old=old, stages=(*done, "live"), evidence=evidence, shadow=shadow,
                    sentence=f"{sentence} It took over from {old[:12]}.")  # fmt: skip


def _watch(
    target: ServingTarget,
    model: str,
    *,
    digest: str,
    old: str,
    stage: _Stage,
    rollout: RolloutSpec,
    until: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> tuple[Decision, str, Evidence]:
    """Poll until the figures decide or time is over (then the decision stays `wait`)."""
    while True:
        evidence = _evidence(target.status(model), digest=digest, old=old)
        decision, sentence = judge(evidence, rollout=rollout, mode=stage.mode)
        if decision != "wait" or monotonic() >= until:
            return decision, sentence, evidence
        sleep(_POLL_SECONDS)


def _evidence(status: dict[str, Any], *, digest: str, old: str) -> Evidence:
    if status["live"] != old or status["challenger"] != digest:
        raise ServingError(
            f"somebody changed the traffic of {status.get('model', 'the model')} during the rollout of {digest[:12]}: live is "
            f"{str(status['live'])[:12]}, challenger {str(status['challenger'])[:12]}; nothing further was changed"
        )
    arms: dict[str, ArmFigures] = status["arms"]
    return Evidence(arms[old], arms[digest], int(status["compared_rows"]), int(status["disagreements"]))


def _live(target: ServingTarget, model: str) -> str | None:
    """Digest that answers now; None where the target does not know the model yet."""
    found = target.status(model)["live"]
    return None if found is None else str(found)


def _set_and_prove(target: ServingTarget, model: str, *, live: str) -> None:
    target.set_traffic(model, live=live)
    found = target.status(model)["live"]
    if found != live:
        raise ServingError(
            f"{model} was told to answer with {live[:12]} and answers with {str(found)[:12]}; look at the server's status page"
        )


def _verdict(
    outcome: Literal["live", "rolled_back", "inconclusive"],
    target: ServingTarget,
    model: str,
    *,
    digest: str,
    old: str | None,
    stages: tuple[str, ...],
    evidence: Evidence | None,
    sentence: str,
    shadow: Evidence | None = None,
) -> RolloutVerdict:
    return RolloutVerdict(
        outcome=outcome,
        version=digest[:12],
        previous=None if old is None else old[:12],
        live_digest=str(target.status(model)["live"]),
        stages=stages,
        champion=evidence.champion if evidence else None,
        challenger=evidence.challenger if evidence else None,
        disagreement=shadow.disagreement if shadow else 0.0,
        compared_rows=shadow.compared_rows if shadow else 0,
        sentence=sentence,
    )
