from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.model import RetrainingSpec
from platform_assets.specs.records import WindowPerformance, WindowReport
from platform_assets.stages.retraining.policy import Evidence, PastRetraining, cool_down_ends, decide

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
