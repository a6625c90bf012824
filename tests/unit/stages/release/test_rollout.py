"""A rollout goes from shadow to live by evidence, and back to what was live, by hash."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import ServingError
from platform_assets.specs.model import RolloutSpec
from platform_assets.specs.records import ArmFigures
from platform_assets.stages.release.rollout import Evidence, judge, run_rollout
from resources.testing.serving import MemoryServing

OLD, NEW = "a" * 64, "b" * 64
ROLLOUT = RolloutSpec(shadow_requests=20, canary_percent=(10, 50), min_requests=10, max_disagreement=0.2, timeout=timedelta(seconds=60))


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
        return run_rollout(
            self.target, "m", digest=digest, rollout=ROLLOUT, sleep=self.sleep, monotonic=self.monotonic, report=lambda _: None
        )


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
    assert (verdict.live_digest, verdict.previous, verdict.compared_rows) == (NEW, OLD[:12], 20)
    assert list(dict.fromkeys(traffic.seen)) == [("shadow", 0), ("canary", 10), ("canary", 50)]


@pytest.mark.parametrize(
    ("how", "errors_in", "said", "last_stage"),
    [
        ({"disagreements": 5}, "", "answered 10 of 20 rows otherwise", "shadow"),
        ({"latency_ms": 50.0}, "", "p99 of 50.00 ms against 1.00 ms", "shadow"),
        ({"errors": 3}, "shadow", "failed on 3 of 10 requests", "shadow"),
        ({"errors": 3}, "canary", "failed on 3 of 10 requests", "canary 10 %"),
    ],
)
def test_a_worse_release_is_rolled_back_and_the_old_one_proven(target, how, errors_in, said, last_stage):
    traffic = Traffic(target, **how)
    traffic.errors_in = errors_in
    verdict = traffic.run()
    assert (verdict.outcome, verdict.live_digest, verdict.stages[-1]) == ("rolled_back", OLD, last_stage)
    assert said in verdict.sentence
    assert target.status("m")["challenger"] is None


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


COUNTS = st.integers(0, 2000)


@given(COUNTS, COUNTS, COUNTS, st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), st.sampled_from(["shadow", "canary"]))
def test_a_verdict_never_advances_on_too_little_or_on_too_many_errors(requests, errors, disagreements, latencies, mode):
    ours, theirs = latencies
    errors = min(errors, requests)
    champion = ArmFigures("old", 500, 500, 0, ours, ours)
    challenger = ArmFigures("new", requests, requests, errors, theirs, theirs)
    evidence = Evidence(champion, challenger, compared_rows=requests, disagreements=min(disagreements, requests))
    decision, sentence = judge(evidence, rollout=ROLLOUT, mode=mode)
    assert sentence
    if decision == "advance":
        assert requests >= (20 if mode == "shadow" else 10)
        assert errors <= ROLLOUT.max_error_share * requests
        assert evidence.disagreement <= ROLLOUT.max_disagreement


def test_one_hiccup_in_a_small_sample_is_no_slowness():
    champion = ArmFigures("old", 100, 100, 0, 1.0, 1.5)
    hiccup = ArmFigures("new", 100, 100, 0, 1.0, 40.0)
    assert judge(Evidence(champion, hiccup, 100), rollout=ROLLOUT, mode="canary")[0] == "advance"
    many = ArmFigures("new", 2000, 2000, 0, 1.0, 40.0)
    assert judge(Evidence(champion, many, 100), rollout=ROLLOUT, mode="canary")[0] == "roll_back"
