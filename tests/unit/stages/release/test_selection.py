from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import ReleaseError
from platform_assets.specs.candidates import Candidate, Rejection
from platform_assets.specs.model import CompressionSpec
from platform_assets.stages.release.selection import AS_CHEAP, find_front, select

LIMITS = CompressionSpec(tolerate_drop=0.01, latency_ms_p99=5.0)


def candidate(name, *, auroc=0.9, cpu=100.0, size=1000, p99=1.0, teacher=0.9):
    return Candidate(name, name * 8, size, 10, {"auroc": auroc}, teacher - auroc, cpu, cpu * 10, p99 / 2, p99, 0.0, 1.0)


candidates = st.lists(
    st.builds(
        lambda auroc, cpu, size, p99: (auroc / 100, float(cpu), size, p99 / 2),
        st.integers(80, 90), st.integers(1, 6), st.integers(1, 6), st.integers(1, 14),
    ),
    max_size=9,
).map(lambda rows: [candidate("teacher", cpu=9.0, size=9)] + [candidate(f"c{n}", auroc=a, cpu=c, size=s, p99=p) for n, (a, c, s, p) in enumerate(rows)])  # fmt: skip


@given(candidates)
def test_the_chosen_is_on_the_front_and_nothing_dominated_is(found):
    selection = select(found, [], metric="auroc", compression=LIMITS)
    quick = {one.name: one for one in found if one.latency_ms_p99 <= 5.0}
    assert selection.chosen.name in selection.front
    assert selection.chosen.drop <= 0.01
    for name in selection.front:
        one = quick[name]
        beaten = [
            other for other in quick.values()
            if other.metrics["auroc"] >= one.metrics["auroc"] and other.cpu_us_b1 <= one.cpu_us_b1 and other.size_bytes <= one.size_bytes
            and (other.metrics["auroc"], other.cpu_us_b1, other.size_bytes) != (one.metrics["auroc"], one.cpu_us_b1, one.size_bytes)
        ]  # fmt: skip
        assert not beaten


@given(candidates, st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_candidates(found, random):
    shuffled = random.sample(found, len(found))
    assert select(found, [], metric="auroc", compression=LIMITS) == select(shuffled, [], metric="auroc", compression=LIMITS)


@given(candidates)
def test_the_chosen_is_the_smallest_of_those_as_cheap_as_the_cheapest_that_keeps_the_limits(found):
    chosen = select(found, [], metric="auroc", compression=LIMITS).chosen
    fit = [one for one in found if one.drop <= 0.01 and one.latency_ms_p99 <= 5.0]
    least = min(one.cpu_us_b1 for one in fit)
    assert chosen.cpu_us_b1 <= AS_CHEAP * least
    assert chosen.size_bytes == min(one.size_bytes for one in fit if one.cpu_us_b1 <= AS_CHEAP * least)


def test_a_gain_within_what_a_measurement_tells_gives_way_to_a_smaller_file():
    found = [candidate("teacher", cpu=90.0, size=9000), candidate("large", cpu=10.0, size=5000), candidate("small", cpu=10.5, size=50)]
    selection = select(found, [], metric="auroc", compression=LIMITS)
    assert selection.chosen.name == "small"
    assert {r.name: r.why for r in selection.rejected}["large"] == "small is as cheap and has 50 bytes, this one 5000"


def test_the_holdout_has_no_word_in_the_choice():
    found = [
        Candidate(name, name, 10, 10, {"auroc": auroc}, drop, 10.0, 1.0, 1.0, 1.0, 0.0, 1.0)
        for name, auroc, drop in (("teacher", 0.9, 0.0), ("student", 0.5, -0.001))
    ]
    assert select(found, [], metric="auroc", compression=LIMITS).chosen.name == "student"


@given(candidates)
def test_every_other_candidate_gets_exactly_one_reason(found):
    selection = select(found, [Rejection("prune", "could not be made")], metric="auroc", compression=LIMITS)
    assert sorted(r.name for r in selection.rejected) == sorted(
        [one.name for one in found if one.name != selection.chosen.name] + ["prune"]
    )


def test_reasons_say_what_was_wrong():
    found = [
        candidate("teacher", cpu=900.0, size=9000), candidate("distil", auroc=0.895, cpu=50.0, size=500), candidate("slow", p99=7.0),
        candidate("poor", auroc=0.8, cpu=10.0, size=100), candidate("beaten", auroc=0.894, cpu=60.0, size=600),
    ]  # fmt: skip
    selection = select(found, [], metric="auroc", compression=LIMITS)
    reasons = {r.name: r.why for r in selection.rejected}
    assert selection.chosen.name == "distil"
    assert reasons["slow"] == "p99 of 7.00 ms is over the budget of 5 ms"
    assert reasons["poor"] == "loses 0.1000 auroc, 0.01 is tolerated"
    assert reasons["beaten"] == "distil is at least as good, as fast and as small"
    assert reasons["teacher"] == "costs 900 us of CPU a row, distil 50 us"


def test_no_candidate_within_the_limits_is_an_error_that_names_the_nearest():
    with pytest.raises(ReleaseError, match=r"nearest is b with a drop of 0.0200 .*loosen compression"):
        select([candidate("a", p99=9.0), candidate("b", auroc=0.88)], [], metric="auroc", compression=LIMITS)


def test_a_metric_that_falls_when_it_improves_is_read_so():
    def one(name, drop):
        return Candidate(name, "d", 1, 1, {"log_loss": 0.2 + drop}, drop, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0)

    assert [c.name for c in find_front([one("good", 0.0), one("bad", 0.2)])] == ["good"]


def test_what_keeps_the_limit_by_chance_alone_gives_way():
    teacher, student = candidate("teacher", cpu=90.0), replace(candidate("student", auroc=0.895, cpu=9.0), drop_error=0.006)
    selection = select([teacher, student], [], metric="auroc", compression=LIMITS)
    assert selection.chosen is teacher
    assert [one.why for one in selection.rejected] == ["loses 0.0050 (give or take 0.0060) auroc, 0.01 is tolerated"]


def test_a_gain_that_may_be_chance_does_not_push_the_teacher_off_the_front():
    found = [candidate("teacher", cpu=9.0), replace(candidate("lucky", auroc=0.901, cpu=9.0), drop_error=0.05)]
    assert select(found, [], metric="auroc", compression=LIMITS).chosen.name == "teacher"
