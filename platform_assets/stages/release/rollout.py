"""From shadow to live: the steps of a rollout, the way back, and the proof of which release answers. What decides is `evidence`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from platform_assets.errors import ServingError
from platform_assets.specs.looks import LookLog, Tally
from platform_assets.specs.records import ArmFigures, RolloutVerdict
from platform_assets.stages.release.evidence import Evidence, Judge, Stage, plan_stages

if TYPE_CHECKING:
    from platform_assets.ports import ServingTarget
    from platform_assets.specs.model import RolloutSpec

_POLL_SECONDS = 0.2
Ended = Literal["live", "rolled_back", "inconclusive"]


def no_labels() -> Tally:
    """Stand for labels that do not come while a rollout lasts."""
    return Tally()


@dataclass(frozen=True)
class Rollout:
    """A target and how a rollout of this model on it reads time, labels and tells what it does."""

    target: ServingTarget
    model: str
    spec: RolloutSpec
    sleep: Callable[[float], None]
    monotonic: Callable[[], float]
    report: Callable[[str], None]
    labelled: Callable[[], Tally] = no_labels

    def run(self, digest: str) -> tuple[RolloutVerdict, LookLog | None]:
        """Bring a release from shadow through the canary's steps to live, or restore what was live and prove it by reading it back.

        Return the verdict and every look that it rests on. The first release goes live at once after the target's own check. Too little
        evidence within `timeout` leaves the champion in force: inconclusive. A release that the target refuses to load is rolled back.
        ServingError only where the target does not answer, or does not do what it was told.
        """
        version = digest[:12]
        old = self._live()
        try:
            self.target.load(self.model, digest)
        except ServingError as error:
            if old is None:
                raise
            return self._verdict("rolled_back", digest, old=old, stages=("refused",), evidence=None, sentence=str(error)), None
        if old is None or old == digest:
            self._set_and_prove(digest)
            why = f"{version} is the first release and passed its self-check." if old is None else f"{version} is live already."
            self.report(why)
            return self._verdict("live", digest, old=None, stages=("live",), evidence=None, sentence=why), None
        return self._walk(digest, old=old)

    def _walk(self, digest: str, *, old: str) -> tuple[RolloutVerdict, LookLog]:
        judge, began = Judge(self.spec), self.monotonic()
        done: list[str] = []
        shadow: Evidence | None = None
        for stage in plan_stages(self.spec):
            self.target.set_traffic(self.model, live=old, challenger=digest, mode=stage.mode, percent=stage.percent)
            self.report(f"{digest[:12]} in {stage.name}")
            done.append(stage.name)
            decision, sentence, evidence = self._watch(judge, stage, digest=digest, old=old, began=began)
            shadow = evidence if stage.mode == "shadow" else shadow
            self.report(sentence)
            if decision != "advance":
                self._set_and_prove(old)
                back = decision == "roll_back"
                closing = f"{sentence} {old[:12]} was restored." if back else f"{sentence} The time for it is over, {old[:12]} stays."
                ended: Ended = "rolled_back" if back else "inconclusive"
                return self._verdict(
                    ended, digest, old=old, stages=tuple(done), evidence=evidence, sentence=closing, shadow=shadow
                ), judge.log()
        self._set_and_prove(digest)
        self.report(f"{digest[:12]} is live")
        closing = f"{sentence} It took over from {old[:12]}."
        stages = (*done, "live")
        return self._verdict("live", digest, old=old, stages=stages, evidence=evidence, sentence=closing, shadow=shadow), judge.log()

    def _watch(self, judge: Judge, stage: Stage, *, digest: str, old: str, began: float) -> tuple[str, str, Evidence]:
        """Look until the figures decide or time is over (then the decision stays `wait`)."""
        judge.begin(stage)
        while True:
            evidence = self._evidence(digest=digest, old=old)
            passed = self.monotonic() - began
            decision, sentence = judge.look(evidence, seconds=passed)
            if decision != "wait" or passed >= self.spec.timeout.total_seconds():
                return decision, sentence, evidence
            self.sleep(_POLL_SECONDS)

    def _evidence(self, *, digest: str, old: str) -> Evidence:
        status = self.target.status(self.model)
        if status["live"] != old or status["challenger"] != digest:
            raise ServingError(
                f"somebody changed the traffic of {self.model} during the rollout of {digest[:12]}: live is "
                f"{str(status['live'])[:12]}, challenger {str(status['challenger'])[:12]}; nothing further was changed"
            )
        arms: dict[str, ArmFigures] = status["arms"]
        return Evidence(arms[old], arms[digest], int(status["compared_rows"]), int(status["disagreements"]), self.labelled())

    def _live(self) -> str | None:
        """Digest that answers now; None where the target does not know the model yet."""
        found: Any = self.target.status(self.model)["live"]
        return None if found is None else str(found)

    def _set_and_prove(self, live: str) -> None:
        self.target.set_traffic(self.model, live=live)
        status = self.target.status(self.model)
        if (status["live"], status["challenger"]) != (live, None):
            raise ServingError(
                f"{self.model} was told to answer with {live[:12]} alone and answers with {str(status['live'])[:12]}, challenger "
                f"{str(status['challenger'])[:12]}; look at the server's status page"
            )

    def _verdict(
        self,
        outcome: Ended,
        digest: str,
        *,
        old: str | None,
        stages: tuple[str, ...],
        evidence: Evidence | None,
        sentence: str,
        shadow: Evidence | None = None,
    ) -> RolloutVerdict:
        compared = shadow.compared_rows if shadow else 0
        return RolloutVerdict(
            outcome=outcome,
            version=digest[:12],
            previous=None if old is None else old[:12],
            live_digest=str(self._live()),
            stages=stages,
            champion=evidence.champion if evidence else None,
            challenger=evidence.challenger if evidence else None,
            disagreement=shadow.disagreements / compared if shadow and compared else 0.0,
            compared_rows=compared,
            sentence=sentence,
            live_before=old,
        )
