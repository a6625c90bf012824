"""What a run is expected to cost follows from what the same work cost before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.spending import Asked, Entry
from platform_assets.stages.admission.cost import LAST_RUNS, Need, expect_step, write_bill

GPU = Asked("gpu", price_aed_per_hour=20.0)
FREE = Asked("local")


def past(hours: float, *, stage: str = "model/trained", asked: Asked = GPU, model: str = "m") -> Entry:
    return Entry("r", "t", model, stage, asked, 0.0, hours * 3600, 0.0, "done")


def need(stage: str = "model/trained", asked: Asked = GPU) -> Need:
    return Need("t", "m", stage, asked)


def test_it_is_the_median_of_the_last_runs():
    newest_first = [past(hours) for hours in (3, 1, 2, 100, 1, 999, 999, 999)]
    assert expect_step(need(), newest_first) == pytest.approx(2 * 20)


def test_only_the_same_model_and_stage_count():
    assert expect_step(need(), [past(1, stage="model/candidates"), past(1, model="n")]) is None


def test_a_new_price_of_the_same_profile_counts_at_once():
    assert expect_step(need(asked=Asked("gpu", price_aed_per_hour=30.0)), [past(2)]) == pytest.approx(60)


def test_a_profile_never_run_on_is_judged_by_what_the_work_cost_elsewhere():
    eight_times = Asked("eight-gpus", price_aed_per_hour=160.0)
    assert expect_step(need(asked=eight_times), [past(8)]) == pytest.approx(160)
    assert expect_step(need(asked=eight_times), [past(8), past(1.5, asked=eight_times)]) == pytest.approx(240)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20))
def test_it_lies_within_what_the_last_runs_cost(hours):
    prices = [hour * 20 for hour in hours[:LAST_RUNS]]
    assert min(prices) - 1e-6 <= expect_step(need(), [past(hour) for hour in hours]) <= max(prices) + 1e-6


def test_a_bill_adds_up_its_steps_and_says_what_it_rests_on():
    bill = write_bill([need(), need("model/candidates")], [past(2), past(1, stage="model/candidates")], max_cost_aed=50)
    assert (bill.aed, bill.training_aed, bill.free) == (pytest.approx(60), pytest.approx(40), False)
    assert bill.basis == "the median of its last 5 runs"


def test_before_any_training_its_declared_most_is_what_it_may_cost():
    bill = write_bill([need(), need("model/candidates")], [past(1, stage="model/candidates")], max_cost_aed=50)
    assert (bill.aed, bill.training_aed) == (pytest.approx(70), None)
    assert bill.basis == "it was never trained, and may cost 50 at most"


def test_before_any_history_it_is_nil_and_says_so():
    bill = write_bill([need()], [], max_cost_aed=None)
    assert (bill.aed, bill.basis, bill.free) == (0, "there is no earlier run to judge by", False)


def test_a_profile_without_a_price_is_free_whatever_is_declared():
    bill = write_bill([need(asked=FREE)], [past(5, asked=FREE)], max_cost_aed=50)
    assert (bill.aed, bill.free, bill.basis) == (0, True, "its profile has no price")


def test_a_bill_is_one_models():
    with pytest.raises(ValueError, match="one model's"):
        write_bill([need(), Need("t", "n", "model/trained", GPU)], [], max_cost_aed=None)


def test_a_trial_of_a_search_is_a_training_with_the_same_limit():
    bill = write_bill([need("model/sweep")], [past(3, stage="model/sweep")], max_cost_aed=50)
    assert bill.training_aed == pytest.approx(60)
    assert write_bill([need("model/sweep")], [], max_cost_aed=50).aed == 50
