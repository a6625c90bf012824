"""A rollout goes from shadow to live by evidence, and back to what was live, by hash."""

from __future__ import annotations

from datetime import timedelta

import pytest

from platform_assets.errors import ServingError
from platform_assets.specs.looks import Tally
from platform_assets.specs.model import RolloutSpec
from platform_assets.stages.release.rollout import Rollout
from resources.testing.serving import MemoryServing

OLD, NEW = "a" * 64, "b" * 64
ROLLOUT = RolloutSpec(canary_percent=(10, 50), min_requests=10, max_error_share=0.1, max_disagreement=0.2, timeout=timedelta(seconds=60))


class Traffic:
    """Plays requests whenever the rollout sleeps, and keeps the time."""

    def __init__(self, target: MemoryServing, **challenger: float) -> None:
        self.target, self.challenger, self.seconds = target, challenger, 0.0
        self.errors_in, self.seen = "", []

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        status = self.target.status("m")
        self.seen.append((status["mode"], status["percent"]))
        compared = 10 if status["mode"] == "shadow" else 0
        self.target.count("m", OLD, requests=10)
        plan = {"requests": 10, "compared": compared, **self.challenger}
        if self.errors_in and self.errors_in != status["mode"]:
            plan["errors"] = 0
        self.target.count("m", NEW, **plan)

    def run(self, digest: str = NEW):
        rollout = Rollout(self.target, "m", ROLLOUT, sleep=self.sleep, monotonic=self.monotonic, report=lambda _: None)
        verdict, self.looks = rollout.run(digest)
        return verdict


@pytest.fixture
def target() -> MemoryServing:
    made = MemoryServing({OLD, NEW})
    made.load("m", OLD)
    made.set_traffic("m", live=OLD)
    return made


def test_the_first_release_goes_live_at_once():
    target = MemoryServing({NEW})
    verdict = Traffic(target).run()
    assert (verdict.outcome, verdict.live_digest, verdict.previous, verdict.stages) == ("live", NEW, None, ("live",))
    assert target.status("m")["live"] == NEW


def test_a_good_release_passes_every_stage_and_takes_over(target):
    traffic = Traffic(target)
    verdict = traffic.run()
    assert verdict.outcome == "live"
    assert verdict.stages == ("shadow", "canary 10 %", "canary 50 %", "live")
    assert (verdict.live_before, verdict.live_digest, verdict.previous, verdict.compared_rows) == (OLD, NEW, OLD[:12], 20)
    assert list(dict.fromkeys(traffic.seen)) == [("shadow", 0), ("canary", 10), ("canary", 50)]


@pytest.mark.parametrize(
    ("how", "errors_in", "said", "last_stage"),
    [
        ({"disagreements": 9}, "", "answered 9 of 10 rows otherwise", "shadow"),
        (
            {"latency_ms": 50.0},
            "",
            "took longer than 6.00 ms on 10 of 10 requests in shadow, the champion aaaaaaaaaaaa has a p99 of 1.00 ms",
            "shadow",
        ),
        ({"errors": 6}, "shadow", "failed on 6 of 10 requests", "shadow"),
        ({"errors": 6}, "canary", "failed on 6 of 10 requests", "canary 10 %"),
    ],
)
def test_a_worse_release_is_rolled_back_and_the_old_one_proven(target, how, errors_in, said, last_stage):
    traffic = Traffic(target, **how)
    traffic.errors_in = errors_in
    verdict = traffic.run()
    assert (verdict.outcome, verdict.live_digest, verdict.stages[-1]) == ("rolled_back", OLD, last_stage)
    assert said in verdict.sentence
    assert (verdict.live_before, target.status("m")["live"], target.status("m")["challenger"]) == (OLD, OLD, None)
    assert traffic.looks.looks[-1].stage == last_stage
    assert max(traffic.looks.looks[-1].against.values()) >= traffic.looks.against_passes


def test_without_traffic_the_champion_stays(target):
    verdict = Traffic(target, requests=0, compared=0).run()
    assert (verdict.outcome, verdict.live_digest) == ("inconclusive", OLD)
    assert target.status("m")["mode"] == "live"


def test_a_refused_release_leaves_the_champion_alone(target):
    verdict = Traffic(target).run("c" * 64)
    assert (verdict.outcome, verdict.live_digest, verdict.stages) == ("rolled_back", OLD, ("refused",))
    with pytest.raises(ServingError):
        Traffic(MemoryServing(set())).run()


def test_the_live_release_again_changes_nothing(target):
    verdict = Traffic(target).run(OLD)
    assert (verdict.outcome, verdict.live_digest) == ("live", OLD)


def test_a_change_by_somebody_else_ends_the_rollout(target):
    traffic = Traffic(target)
    traffic.sleep = lambda _: target.set_traffic("m", live=OLD)
    with pytest.raises(ServingError, match="somebody changed the traffic"):
        traffic.run()


def test_a_server_that_does_not_restore_the_champion_is_told(target, monkeypatch):
    set_traffic = target.set_traffic
    monkeypatch.setattr(target, "set_traffic", lambda model, **how: set_traffic(model, **how) if "challenger" in how else None)
    with pytest.raises(ServingError, match="was told to answer with aaaaaaaaaaaa alone"):
        Traffic(target, errors=10).run()


def test_labels_that_come_during_the_rollout_roll_a_worse_release_back(target):
    traffic = Traffic(target, requests=1, compared=1)
    spec = ROLLOUT.model_copy(update={"min_requests": 100})
    came = iter(range(0, 10_000, 20))

    def labelled():
        count = next(came)
        return Tally(count, count)

    verdict, looks = Rollout(
        target, "m", spec, sleep=traffic.sleep, monotonic=traffic.monotonic, report=lambda _: None, labelled=labelled
    ).run(NEW)
    assert verdict.outcome == "rolled_back"
    assert "newly labelled rows that one of the two got right" in verdict.sentence
    assert looks.looks[-1].against["worse"] >= looks.against_passes
