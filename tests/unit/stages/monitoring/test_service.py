"""Service figures of a release against what it showed itself: what is called a regression, what is not, and that it retrains nothing."""

from dataclasses import asdict, replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.looks import LATENCY_BOUNDS
from platform_assets.specs.model import MonitoringSpec, RetrainingSpec
from platform_assets.specs.record_json import from_mapping, read_record, to_json
from platform_assets.specs.records import ArmFigures, DriftReport
from platform_assets.specs.service import PaceCounts, ServiceCounts
from platform_assets.stages.monitoring.service import counts_of, extend_service, judge_service, quantile_ms, subtract
from platform_assets.stages.retraining.policy import Evidence, decide

SPEC = MonitoringSpec()


def served(requests=2000, *, scale=1.0, errors=0, cpu_us=100.0, rows=1, seed=0, version="v1", pace=0):
    """Figures of requests, all at one pace, whose latency is lognormal around 2 ms times `scale`."""
    seconds = np.random.default_rng(seed).lognormal(np.log(0.002 * scale), 0.4, requests - errors)
    counts = np.bincount(np.searchsorted(LATENCY_BOUNDS, seconds), minlength=len(LATENCY_BOUNDS) + 1)
    counts = tuple(counts.tolist())
    paces = [PaceCounts()] * pace + [PaceCounts(requests, requests * rows, cpu_us * requests / 1e6, counts)]
    return ArmFigures(version, requests, requests * rows, errors, 0.0, 0.0, counts, tuple(paces))


def judge(before, now):
    return {one.what: one for one in judge_service(counts_of(before), counts_of(now), spec=SPEC)}


def test_a_release_that_is_served_as_before_regresses_in_nothing():
    for seed in range(40):
        found = judge(served(seed=100 + seed), served(seed=seed, requests=600))
        assert set(found) == {"latency_p99", "errors", "cpu"}
        assert not any(one.regressed for one in found.values())


@pytest.mark.parametrize(
    ("what", "worse", "graver"),
    [
        ("latency_p99", {"scale": 4.0}, {"scale": 9.0}),
        ("errors", {"errors": 40}, {"errors": 200}),
        ("cpu", {"cpu_us": 250.0}, {"cpu_us": 900.0}),
    ],
)
def test_each_figure_regresses_alone_with_a_severity_by_its_effect(what, worse, graver):
    for more, severity in ((worse, "warning"), (graver, "error")):
        found = judge(served(), served(seed=1, **more))
        assert {name for name, one in found.items() if one.regressed} == {what}
        assert found[what].severity == severity
        assert found[what].effect > found[what].threshold


def test_larger_requests_cost_more_each_and_are_no_regression():
    """Per request 8 times as dear, per row half."""
    found = judge(served(cpu_us=100), served(cpu_us=800, rows=16))
    assert not found["cpu"].regressed
    assert judge(served(cpu_us=800, rows=16), served(cpu_us=100, rows=1))["cpu"].regressed is False


def test_a_few_slow_requests_are_chance():
    now = counts_of(served(requests=500))
    (pace,) = now.paces
    slow = replace(now, paces=(replace(pace, latency_counts=(*pace.latency_counts[:-1], 6)),))  # 6 of 506 are over any bound
    found = next(judge_service(counts_of(served()), slow, spec=SPEC))
    assert found.effect > found.threshold
    assert found.p_value > SPEC.significance
    assert not found.regressed


def test_spans_are_what_was_counted_since_and_wait_for_enough_requests():
    first, more, enough = served(600), served(900), served(1200)
    service = extend_service((), live=first, rollout=None, at="2026-01-01", spec=SPEC)
    assert (service[0].source, service[0].findings) == ("first_live_requests", ())
    assert extend_service(service, live=more, rollout=None, at="2026-01-02", spec=SPEC) == service
    longer = extend_service(service, live=enough, rollout=None, at="2026-01-03", spec=SPEC)
    assert (longer[1].counted.requests, longer[1].against) == (600, service[0].counted)
    assert len(longer[1].findings) == 3


def test_a_release_is_held_against_its_own_rollout_where_that_saw_enough():
    rollout = served(800)
    known = extend_service((), live=served(600, scale=5), rollout=rollout, at="2026-01-01", spec=SPEC)
    assert (known[0].source, known[0].against) == ("rollout", counts_of(rollout))
    assert [one.what for one in known[0].regressed] == ["latency_p99"]
    few = extend_service((), live=served(600, scale=5), rollout=served(100), at="2026-01-01", spec=SPEC)
    assert few[0].source == "first_live_requests"


def test_another_version_begins_anew_and_a_restarted_server_too():
    service = extend_service((), live=served(2000), rollout=None, at="2026-01-01", spec=SPEC)
    restarted = extend_service(service, live=served(700), rollout=None, at="2026-01-02", spec=SPEC)
    assert restarted[1].counted.requests == 700
    other = extend_service(restarted, live=served(700, scale=9, version="v2"), rollout=None, at="2026-01-03", spec=SPEC)
    assert (other[2].source, other[2].regressed) == ("first_live_requests", ())


@given(st.lists(st.integers(0, 50), min_size=69, max_size=69), st.lists(st.integers(0, 50), min_size=69, max_size=69))
def test_what_was_counted_before_and_since_add_up(before, since):
    def counted(counts):
        return ServiceCounts(sum(counts), 0, (PaceCounts(), PaceCounts(sum(counts), sum(counts), float(sum(counts)), tuple(counts))))

    old, new = counted(before), counted([one + other for one, other in zip(before, since, strict=True)])
    assert subtract(new, old) == counted(since)
    assert subtract(old, new) == old or not sum(since)


def test_figures_are_compared_at_a_like_pace_and_say_nothing_at_another():
    """After a pause the same request takes several times the CPU and the time: that is no regression."""
    busy, idle = served(3000, cpu_us=90), served(2000, scale=5, cpu_us=720, pace=5)
    both = replace(idle, requests=5000, paces=(*busy.paces, *idle.paces[1:]))
    assert set(judge(busy, idle)) == {"errors"}
    assert not any(one.regressed for one in judge(both, served(600, scale=5, cpu_us=720, pace=5)).values())
    assert judge(both, served(600, scale=5, cpu_us=720))["latency_p99"].regressed
    assert judge(both, served(600, scale=5, cpu_us=720))["cpu"].effect == pytest.approx(8)


@given(st.lists(st.integers(0, 9), min_size=69, max_size=69), st.floats(0.01, 0.999))
def test_a_quantile_leaves_no_more_than_its_share_above(counts, share):
    limit = quantile_ms(counts, share)
    if not sum(counts):
        assert limit == 0
        return
    above = sum(count for bound, count in zip(LATENCY_BOUNDS, counts, strict=False) if bound * 1000 > limit * 1.0001)
    assert above <= (1 - share) * sum(counts) + 1e-9


def test_reports_of_before_are_read_and_new_ones_come_back_as_they_were():
    assert read_record(DriftReport, '{"windows": []}').service == ()
    service = extend_service((), live=served(600, scale=5), rollout=served(800), at="2026-01-01", spec=SPEC)
    report = DriftReport((), service=service)
    assert read_record(DriftReport, to_json(report)) == report
    assert from_mapping(ArmFigures, asdict(served())) == served()


def test_the_policy_never_hears_of_the_service():
    """A slow server is told to people: evidence has no place for it."""
    assert "service" not in Evidence.__dataclass_fields__
    verdict = decide(Evidence(drift=(), performance=(), rows_since_training=0), history=[], now=datetime(2026, 1, 1), spec=RetrainingSpec())
    assert not verdict.asked
