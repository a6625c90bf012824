from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.estimate import WindowEstimate
from platform_assets.specs.feed import FeedFault, FeedReport
from platform_assets.specs.model import PayoffSpec, RetrainingSpec
from platform_assets.specs.records import WindowPerformance, WindowReport
from platform_assets.stages.retraining.policy import WORDS, Evidence, PastRetraining, Wanted, cool_down_ends, count_useless, decide

START = datetime(2016, 7, 1)
SPEC = RetrainingSpec(cool_down="30d", at_most=2, within="365d", on_new_rows=1000)


def day(n):
    return START + timedelta(days=n)


def window(n, *, drifted, at=None):
    at = day(n) if at is None else at
    return WindowReport(n, n * 10, n * 10 + 9, str(at), str(at), ("v1",), (), drifted, f"window {n} moved")


def windows(*flags):
    return Evidence(drift=tuple(window(n, drifted=bool(flag)) for n, flag in enumerate(flags)))


def past(verdict, *, outcome="pending", finished=None):
    return PastRetraining(verdict.verdict_id, verdict.trigger, datetime.fromisoformat(verdict.decided_at), outcome, finished)


def test_no_evidence_asks_for_nothing():
    verdict = decide(windows(0, 0), history=[], now=day(2), spec=SPEC)
    assert (verdict.asked, verdict.trigger) == (False, "none")


def test_a_breach_asks_once_under_one_name_however_long_it_lasts():
    first = decide(windows(0, 1), history=[], now=day(2), spec=SPEC)
    again = decide(windows(0, 1, 1, 1), history=[], now=day(4), spec=SPEC)
    assert (first.asked, first.trigger, first.evidence) == (True, "drift", {"window": 1.0, "windows": 1.0, "row": 10.0, "labelled": 0.0})
    assert again.verdict_id == first.verdict_id
    answered = decide(windows(0, 1, 1, 1), history=[past(first)], now=day(90), spec=SPEC)
    assert (answered.asked, answered.sentence) == (False, "window 3 moved; not asked: it was answered already")


def test_a_new_breach_after_the_old_one_ended_asks_again_once_the_cool_down_is_over():
    history = [past(decide(windows(0, 1), history=[], now=day(2), spec=SPEC))]
    inside = decide(windows(0, 1, 0, 1), history=history, now=day(10), spec=SPEC)
    after = decide(windows(0, 1, 0, 1), history=history, now=day(33), spec=SPEC)
    assert (inside.asked, after.asked) == (False, True)
    assert "cool-down lasts until 2016-08-02" in inside.sentence


def test_a_drift_waits_until_there_is_something_new_to_learn():
    def evidence(labelled):
        settled = tuple(WindowPerformance(n, str(day(n)), 10, labelled, "auroc", 0.8, 0.8, True, False, "") for n in range(4))
        return replace(windows(0, 1, 1, 1), performance=settled)

    spec = SPEC.model_copy(update={"wait_for_labels": 21})
    early = decide(evidence(7 - 1), history=[], now=day(4), spec=spec)
    assert (early.asked, "18 labels have come since it began, 21 are waited for" in early.sentence) == (False, True)
    assert decide(evidence(7), history=[], now=day(4), spec=spec).asked


def test_windows_before_a_finished_retraining_are_no_longer_evidence():
    first = decide(windows(0, 1), history=[], now=day(2), spec=SPEC)
    history = [past(first, outcome="helped", finished=day(2))]
    assert decide(windows(0, 1), history=history, now=day(300), spec=SPEC).trigger == "none"
    later = decide(windows(0, 1, 1, 1), history=history, now=day(40), spec=SPEC)
    assert later.asked
    assert later.verdict_id != first.verdict_id


def test_a_retraining_that_was_cut_off_is_asked_for_anew_and_does_not_count():
    first = decide(windows(0, 1), history=[], now=day(2), spec=SPEC)
    again = decide(windows(0, 1), history=[past(first, outcome="cut_off", finished=day(2))], now=day(2), spec=SPEC)
    assert again.asked
    assert again.verdict_id != first.verdict_id


def test_the_cool_down_is_twice_as_long_after_a_retraining_that_did_not_help():
    ends = {
        word: cool_down_ends([PastRetraining("x", "drift", START, word, START)], spec=SPEC) for word in ("helped", "did_not_help", "failed")
    }
    assert ends == {"helped": day(30), "did_not_help": day(60), "failed": day(30)}


def test_no_more_than_the_limit_is_asked_for_within_the_span():
    history = [PastRetraining(str(n), "schedule", day(n * 40), "helped", day(n * 40)) for n in range(2)]
    verdict = decide(Evidence(drift=(window(9, drifted=True, at=day(200)),)), history=history, now=day(200), spec=SPEC)
    assert (verdict.asked, "2 were asked for within 365 days" in verdict.sentence) == (False, True)
    assert decide(Evidence(drift=(window(9, drifted=True, at=day(500)),)), history=history, now=day(500), spec=SPEC).asked


def test_a_drop_of_performance_and_new_rows_ask_too_and_each_can_be_switched_off():
    drop = WindowPerformance(0, str(day(1)), 10, 10, "auroc", 0.7, 0.9, settled=True, dropped=True, sentence="auroc fell")
    unsettled = replace(drop, settled=False)
    assert decide(Evidence(performance=(drop,)), history=[], now=day(2), spec=SPEC).trigger == "performance"
    assert decide(Evidence(performance=(unsettled,)), history=[], now=day(2), spec=SPEC).asked is False
    assert decide(Evidence(rows_since_training=1000), history=[], now=day(2), spec=SPEC).trigger == "new_rows"
    off = RetrainingSpec(on_drift=False, on_performance=False)
    everything = Evidence(windows(1).drift, (drop,), 10**6)
    assert decide(everything, history=[], now=day(2), spec=off).trigger == "none"


def estimate(n, *, dropped=True):
    return WindowEstimate(n, str(day(n)), "auroc", 0.7, 0.68, 0.72, 0.9, dropped, f"window {n} is estimated lower")


def test_an_estimated_drop_asks_only_where_that_is_declared_and_until_labels_settle_the_window():
    spec = SPEC.model_copy(update={"on_estimate": True})
    fallen = Evidence(estimates=(estimate(0, dropped=False), estimate(1), estimate(2)))
    assert decide(fallen, history=[], now=day(3), spec=SPEC).trigger == "none"
    verdict = decide(fallen, history=[], now=day(3), spec=spec)
    assert (verdict.asked, verdict.trigger, verdict.since, verdict.sentence) == (
        True, "estimate", f"window 1 until {day(1)}", "window 2 is estimated lower",
    )  # fmt: skip
    settled = WindowPerformance(2, str(day(2)), 10, 10, "auroc", 0.9, 0.9, settled=True, dropped=False, sentence="")
    assert decide(replace(fallen, performance=(settled,)), history=[], now=day(3), spec=spec).trigger == "none"
    fault = FeedFault(2, 20, 29, "a", "b", ("unit change",), "the feed is at fault", ())
    healthy_again = FeedReport(4, (fault,), ("",) * 4)
    assert decide(replace(fallen, feed=healthy_again), history=[], now=day(4), spec=spec).since == f"window 1 until {day(1)}"


def test_an_estimate_that_holds_never_speaks_against_a_drift():
    for spec in (SPEC, SPEC.model_copy(update={"on_estimate": True})):
        assert decide(replace(windows(0, 1), estimates=(estimate(1, dropped=False),)), history=[], now=day(2), spec=spec).asked


events = st.lists(
    st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 1500), st.sampled_from(["pending", "helped", "did_not_help", "failed"])),
    max_size=40,
)


@given(events)
def test_in_any_order_of_events_it_never_asks_more_than_its_limit_nor_inside_the_cool_down_nor_twice_under_one_name(story):
    history, drift, now = [], [], START
    for n, (drifted, days, rows, outcome) in enumerate(story):
        now += timedelta(days=days)
        drift.append(window(n, drifted=drifted, at=now))
        ends = cool_down_ends(history, spec=SPEC)
        verdict = decide(Evidence(drift=tuple(drift), rows_since_training=rows), history=history, now=now, spec=SPEC)
        assert verdict == decide(Evidence(drift=tuple(drift), rows_since_training=rows), history=list(history), now=now, spec=SPEC)
        if verdict.asked:
            assert ends is None or now >= ends
            assert verdict.verdict_id not in {one.verdict_id for one in history}
            history.append(past(verdict, outcome=outcome, finished=None if outcome == "pending" else now))
        assert sum(one.decided_at > now - SPEC.within for one in history) <= SPEC.at_most


FAULT = FeedFault(1, 10, 19, str(day(1)), str(day(1)), ("unit change",), "window 1: the feed is at fault", ("k",))


def test_on_a_broken_feed_nothing_is_asked_for_whoever_asks():
    person = (Wanted("person", "the price list changed", 7),)
    evidence = replace(windows(0, 1), feed=FeedReport(2, (FAULT,)), wanted=person)
    verdict = decide(evidence, history=[], now=day(2), spec=SPEC)
    assert (verdict.asked, verdict.blocked, verdict.trigger) == (False, "data_at_fault", "feed")
    assert verdict.sentence == "window 1: the feed is at fault; not asked: nothing is learnt from data at fault"
    healthy = replace(evidence, drift=windows(0, 1, 0).drift, feed=FeedReport(3, (FAULT,)))
    assert decide(healthy, history=[], now=day(3), spec=SPEC).trigger == "person"


def test_a_faulty_window_neither_begins_nor_ends_a_drift():
    evidence = replace(windows(1, 0, 1), feed=FeedReport(3, (FAULT,)))
    assert decide(evidence, history=[], now=day(3), spec=SPEC).evidence["windows"] == 2.0


@pytest.mark.parametrize("trigger", ["person", "drift"])
def test_it_is_quiet_while_a_training_or_a_rollout_is_under_way(trigger):
    wanted = (Wanted("person", "x", 1),) if trigger == "person" else ()
    evidence = replace(windows(0, 1), wanted=wanted, under_way="the rollout of abc")
    verdict = decide(evidence, history=[], now=day(2), spec=SPEC)
    assert (verdict.asked, verdict.trigger) == (False, trigger)
    assert verdict.sentence.endswith("not asked: the rollout of abc is under way")


def test_what_is_asked_in_words_is_answered_once_before_all_else_and_anew_where_the_run_was_cut_off():
    wanted = (Wanted("event", "a new tariff", 3), Wanted("person", "I say so", 4))
    first = decide(replace(windows(0, 1), wanted=wanted), history=[], now=day(2), spec=SPEC)
    assert (first.asked, first.trigger, first.since, first.triggers) == (True, "person", "4", ("person", "event", "drift"))
    done = replace(past(first, outcome="helped", finished=day(2)), since=first.since)
    second = decide(replace(windows(0, 1), wanted=wanted), history=[done], now=day(200), spec=SPEC)
    assert (second.asked, second.trigger) == (True, "event")
    cut = replace(done, outcome="cut_off")
    again = decide(Evidence(wanted=wanted), history=[cut], now=day(2), spec=SPEC)
    assert (again.asked, again.trigger) == (True, "person")
    assert again.verdict_id != first.verdict_id
    both = [done, replace(past(second, outcome="helped", finished=day(200)), since=second.since)]
    assert decide(Evidence(wanted=wanted), history=both, now=day(900), spec=SPEC).trigger == "none"


@pytest.mark.parametrize(("trigger", "asked"), [("person", True), ("erasure", True), ("event", False)])
def test_a_person_and_an_erasure_wait_for_no_cool_down(trigger, asked):
    history = [PastRetraining("x", "drift", day(1), "helped", day(1))]
    assert decide(Evidence(wanted=(Wanted(trigger, "so it is", 1),)), history=history, now=day(2), spec=SPEC).asked is asked


def test_an_old_model_asks_where_an_age_is_declared():
    spec = SPEC.model_copy(update={"on_age": timedelta(days=90)})
    assert decide(Evidence(age=timedelta(days=89)), history=[], now=day(2), spec=spec).trigger == "none"
    verdict = decide(Evidence(age=timedelta(days=91)), history=[], now=day(2), spec=spec)
    assert (verdict.asked, verdict.trigger, verdict.evidence) == (True, "age", {"age_days": 91.0})


def test_after_several_retrainings_that_won_nothing_a_person_is_asked_and_may_ask_back():
    history = [PastRetraining(str(n), "drift", day(n * 100), "did_not_help", day(n * 100)) for n in range(3)]
    spec = SPEC.model_copy(update={"at_most": 99})
    evidence = Evidence(drift=(window(9, drifted=True, at=day(900)),))
    verdict = decide(evidence, history=history, now=day(900), spec=spec)
    assert (verdict.asked, verdict.blocked) == (False, "needs_a_person")
    assert "3 retrainings in a row won nothing" in verdict.sentence
    assert decide(replace(evidence, wanted=(Wanted("person", "try again", 1),)), history=history, now=day(900), spec=spec).asked
    helped = [*history[:2], replace(history[2], outcome="helped")]
    assert (count_useless(helped), decide(evidence, history=helped, now=day(900), spec=spec).asked) == (0, True)


def test_a_trigger_whose_retrainings_won_nothing_is_believed_less_and_less():
    evidence = Evidence(drift=(window(9, drifted=True, at=day(900)),), cpu_seconds=10.0, price_aed=1.5)
    spec = SPEC.model_copy(update={"at_most": 99, "payoff": PayoffSpec(budget=1.0)})
    first = decide(evidence, history=[], now=day(900), spec=spec)
    assert (first.asked, first.expected_cost_aed) == (True, 1.5)
    assert first.expected_gain == pytest.approx(0.05)
    assert "for this reason none was made yet" in first.weighed
    useless = [PastRetraining(str(n), "drift", day(n * 100), "undecided", day(n * 100), gain=0.0, age=3) for n in range(2)]
    later = decide(evidence, history=useless, now=day(900), spec=spec)
    assert not later.asked
    assert "3.0% would pay for it" in later.sentence
    won = [replace(one, gain=0.2) for one in useless]
    assert decide(evidence, history=won, now=day(900), spec=spec).expected_gain > first.expected_gain


def test_the_budget_holds_what_the_gain_would_ask_for():
    evidence = Evidence(drift=(window(9, drifted=True, at=day(900)),), cpu_seconds=10.0)
    history = [PastRetraining(str(n), "drift", day(n * 100), "helped", day(n * 100), gain=0.3, age=9) for n in range(6)]
    verdict = decide(evidence, history=history, now=day(900), spec=SPEC.model_copy(update={"at_most": 99}))
    assert not verdict.asked
    assert "60.00 of 12.00 CPU s are spent" in verdict.sentence


def test_a_loss_that_has_risen_is_expected_to_be_won_back():
    def measured(n, value):
        return WindowPerformance(n, str(day(n)), 1000, 1000, "auroc", value, 0.9, settled=True, dropped=n > 0, sentence="", error=0.005)

    evidence = replace(windows(0, 1), performance=(measured(0, 0.9), measured(1, 0.8)), cpu_seconds=10.0)
    verdict = decide(evidence, history=[], now=day(2), spec=SPEC)
    assert verdict.asked
    assert verdict.expected_gain == pytest.approx(0.5)
    assert "the loss has risen by 50%" in verdict.weighed


stories = st.lists(
    st.tuples(
        st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "person", "event", "erasure"]), st.integers(1, 40),
        st.sampled_from(["helped", "did_not_help", "undecided", "failed", "cut_off"]), st.floats(-1, 1),
    ),
    max_size=30,
)  # fmt: skip


@given(stories)
def test_in_any_story_a_fault_or_work_under_way_keeps_it_quiet_and_every_word_is_answered_once(story):
    history, drift, faults, wanted, now, asked_words = [], [], [], [], START, []
    for n, (drifted, faulty, busy, word, days, outcome, gain) in enumerate(story):
        now += timedelta(days=days)
        drift.append(window(n, drifted=drifted, at=now))
        if faulty:
            faults.append(replace(FAULT, window=n))
        if word:
            wanted.append(Wanted(word, "so it is", n))
        evidence = Evidence(
            tuple(drift), wanted=tuple(wanted), feed=FeedReport(n + 1, tuple(faults)), under_way="a run" if busy else "", cpu_seconds=1.0
        )
        verdict = decide(evidence, history=history, now=now, spec=SPEC)
        assert verdict == decide(evidence, history=list(history), now=now, spec=SPEC)
        if faulty:
            assert verdict.blocked == "data_at_fault"
        if not verdict.asked:
            continue
        assert not faulty
        assert not busy
        assert verdict.verdict_id not in {one.verdict_id for one in history}
        history.append(replace(past(verdict, outcome=outcome, finished=now), since=verdict.since, gain=gain, age=1))
        if verdict.trigger in WORDS and outcome != "cut_off":
            asked_words.append(verdict.since)
    assert len(asked_words) == len(set(asked_words))
