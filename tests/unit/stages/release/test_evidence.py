"""The verdict's declared error rates hold over whole rollouts, and each criterion says what decided it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from platform_assets.specs.looks import LATENCY_BOUNDS, Tally, slower_than
from platform_assets.specs.model import RolloutSpec
from platform_assets.specs.records import ArmFigures
from platform_assets.stages.release.evidence import Evidence, Judge, plan_stages
from platform_assets.stages.release.pictures import draw_looks, write_looks_table

FAST, SLOW = 30, 60  # places in LATENCY_BOUNDS: 16 ms and 13 s


def arm(version, requests, *, errors=0, slow=0):
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    counts[FAST], counts[SLOW] = requests - errors - slow, slow
    p99 = 1000 * LATENCY_BOUNDS[FAST]
    return ArmFigures(version, requests, requests, errors, p99, p99, tuple(counts))


def walk(spec, random, *, errors=0.0, slow=0.0, disagreement=0.0, worse=None, step=5, most=300):
    """One rollout against a challenger that does harm in these shares; 'live', 'rolled_back' or 'inconclusive', and its requests."""
    judge, total = Judge(spec), 0
    for stage in plan_stages(spec):
        judge.begin(stage)
        seen = failed = late = other = won = judged = 0
        while True:
            evidence = Evidence(
                arm("old", seen),
                arm("new", seen, errors=failed, slow=late),
                seen if stage.mode == "shadow" else 0,
                other,
                Tally(judged, won),
            )
            decision, _ = judge.look(evidence, seconds=float(total))
            if decision == "roll_back":
                return "rolled_back", total, judge
            if decision == "advance":
                break
            if total >= most:
                return "inconclusive", total, judge
            news = random.binomial(step, errors)
            seen, failed, total = seen + step, failed + news, total + step
            late += random.binomial(step - news, slow)
            other += random.binomial(step, disagreement) if stage.mode == "shadow" else 0
            judged, won = (judged + step, won + random.binomial(step, worse)) if worse is not None else (0, 0)
    return "live", total, judge


QUICK = RolloutSpec(
    canary_percent=(10, 50), min_requests=10, max_error_share=0.1, max_slow_share=0.1, max_disagreement=0.2, false_rollback=0.1,
    false_promotion=0.1,
)  # fmt: skip


def share_of(outcome, *, runs=300, seed=1, **harm):
    random = np.random.default_rng(seed)
    return sum(walk(QUICK, random, **harm)[0] == outcome for _ in range(runs)) / runs


def bound(rate, runs=300):
    """What a share with this expectation passes in one of a million simulations."""
    return rate + 4.9 * math.sqrt(rate * (1 - rate) / runs)


def test_a_release_at_every_limit_is_rolled_back_no_more_often_than_declared():
    at_the_limits = {"errors": 0.1, "slow": 0.1, "disagreement": 0.2, "worse": 0.6}
    assert share_of("rolled_back", **at_the_limits) <= bound(0.1)


@pytest.mark.parametrize("harm", [{"errors": 0.1}, {"slow": 0.1}, {"disagreement": 0.2}])
def test_a_release_at_one_limit_goes_live_no_more_often_than_declared(harm):
    assert share_of("live", **harm) <= bound(0.1)


def test_good_ones_go_live_and_bad_ones_go_back_on_few_requests():
    assert share_of("live", errors=0.005, slow=0.005, disagreement=0.03) > 0.95
    assert share_of("rolled_back", errors=0.5) == 1.0
    random = np.random.default_rng(2)
    good = [walk(QUICK, random)[1] for _ in range(50)]
    bad = [walk(QUICK, random, errors=0.5)[1] for _ in range(50)]
    assert np.mean(bad) < 25 < np.mean(good) < 100


def test_a_canary_that_fails_goes_back_at_once_however_flawless_the_shadow_was():
    judge = Judge(QUICK)
    shadow, canary, _ = plan_stages(QUICK)
    judge.begin(shadow)
    assert judge.look(Evidence(arm("old", 100_000), arm("new", 100_000), 100_000, 0), seconds=1.0)[0] == "advance"
    judge.begin(canary)
    decision, sentence = judge.look(Evidence(arm("old", 100), arm("new", 10, errors=7)), seconds=2.0)
    assert decision == "roll_back"
    assert "new failed on 7 of 10 requests in canary 10 %; at most 10.00% may" in sentence


def test_only_the_last_step_waits_for_the_whole_proof_and_the_steps_before_it_count():
    judge = Judge(QUICK)
    shadow, first, last = plan_stages(QUICK)
    judge.begin(shadow)
    assert judge.look(Evidence(arm("old", 50), arm("new", 50), 50, 0), seconds=1.0)[0] == "advance"
    judge.begin(first)
    assert judge.look(Evidence(arm("old", 50), arm("new", 10)), seconds=2.0)[0] == "advance"
    judge.begin(last)
    decision, sentence = judge.look(Evidence(arm("old", 50), arm("new", 10)), seconds=3.0)
    assert decision == "wait"
    assert "0 of 20 failed requests do not show yet that at most 10.00% are" in sentence
    assert judge.look(Evidence(arm("old", 50), arm("new", 30)), seconds=4.0)[0] == "advance"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ({"slow": 0.9}, "took longer than"),
        ({"disagreement": 0.9}, "rows otherwise than old in shadow; at most 20.00% may"),
        ({"worse": 0.99}, "newly labelled rows that one of the two got right, old won"),
    ],
)
def test_each_harm_is_named(harm, said):
    judge = Judge(QUICK)
    judge.begin(plan_stages(QUICK)[0])
    random, seen, counts = np.random.default_rng(3), 0, dict.fromkeys(("slow", "disagreement", "worse"), 0)
    decision = "wait"
    while decision != "roll_back":
        seen += 5
        for name, share in harm.items():
            counts[name] += random.binomial(5, share)
        labelled = Tally(seen, counts["worse"]) if "worse" in harm else Tally()
        evidence = Evidence(arm("old", seen + 10), arm("new", seen, slow=counts["slow"]), seen, counts["disagreement"], labelled)
        decision, sentence = judge.look(evidence, seconds=1.0)
        assert seen < 100
    assert said in sentence


def test_what_is_slow_is_measured_by_a_limit_that_stood_before_the_requests_came():
    judge = Judge(QUICK)
    judge.begin(plan_stages(QUICK)[0])
    judge.look(Evidence(arm("old", 5), arm("new", 50, slow=50), 50, 0), seconds=1.0)  # the champion is not timed yet: they do not count
    judge.look(Evidence(arm("old", 50), arm("new", 50, slow=50), 50, 0), seconds=2.0)
    judge.look(Evidence(arm("old", 50), arm("new", 60, slow=52), 60, 0), seconds=3.0)
    assert judge.looks[-1].tallies["slow"] == Tally(10, 2)


def test_a_limit_of_one_is_not_tested_and_every_look_is_kept_for_people():
    spec = QUICK.model_copy(update={"max_disagreement": 1.0, "max_slow_share": 1.0})
    outcome, requests, judge = walk(spec, np.random.default_rng(4), slow=0.9, disagreement=0.9)
    assert outcome == "live"
    log = judge.log()
    assert set(log.limits) == {"errors", "worse"}
    assert sum(look.tallies["errors"].trials for look in {look.stage: look for look in log.looks}.values()) == requests
    assert log.looks[-1].in_favour["errors"] >= log.in_favour_passes
    assert draw_looks(log).startswith(b"\x89PNG")
    assert "| canary 50 % | errors | 0 of" in write_looks_table(log)


def test_a_limit_of_latency_is_rounded_up_to_a_bound():
    counts = arm("new", 10, slow=4).latency_counts
    assert slower_than(counts, milliseconds=1000 * LATENCY_BOUNDS[SLOW - 1]) == Tally(10, 4)
    assert slower_than(counts, milliseconds=1000 * LATENCY_BOUNDS[SLOW - 1] + 1) == Tally(10, 0)
