"""Asked against used: which declared profile would fit better."""

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile
from platform_assets.specs.spending import Asked, Entry, Used
from platform_assets.stages.telemetry.rightsizing import HEADROOM, advise, advise_ledger

GIB = 2**30


def profile(cpu=8, memory="32Gi", price=8.0, gpus=0, **other):
    return ComputeProfile(
        cpu=cpu, memory=memory, price_aed_per_hour=price, accelerator=AcceleratorSpec(count=gpus) if gpus else None, **other
    )


SHELF = {
    "small": profile(2, "8Gi", 2.0), "middle": profile(4, "16Gi", 4.0), "large": profile(8, "32Gi", 8.0), "huge": profile(16, "128Gi", 20.0),
    "gpu-1": profile(8, "64Gi", 20.0, gpus=1), "gpu-4": profile(32, "256Gi", 80.0, gpus=4), "gpu-1-fat": profile(16, "64Gi", 24.0, gpus=1),
}  # fmt: skip


def used(cores=1.0, gib=2.0, seconds=3600.0, **other):
    return Used(
        peak_rss_bytes=int(gib * GIB), peak_memory_bytes=int(gib * GIB), cpu_cores_mean=cores * 0.9, cpu_cores_p95=cores, seconds=seconds,
        **{"gpus": 0, "data_wait": 0.01, **other},
    )  # fmt: skip


def judge(name, shelf=SHELF, **figures):
    advice = advise(name, profiles=shelf, used=used(**figures))
    return advice.verdict, advice.profile


def test_the_cheapest_profile_that_fits_with_headroom_is_named():
    assert judge("huge", cores=1.5, gib=6.0) == ("smaller", "small")
    assert judge("huge", cores=1.7, gib=6.0) == ("smaller", "middle")
    assert judge("huge", cores=1.5, gib=6.5) == ("smaller", "middle")


def test_the_sentence_says_what_was_asked_used_and_saved():
    sentence = advise("huge", profiles=SHELF, used=used(cores=1.5, gib=6.0)).sentence
    assert sentence == (
        "huge offers 16 cores and 128.0 GiB a node; used were 1.4 cores (95 % of the time at most 1.5) and 6.00 GiB. "
        "Take small instead: it fits with headroom and saves 18.00 AED an hour a node."
    )


def test_a_training_that_fills_its_cores_fits():
    assert judge("small", cores=2.0, gib=5.0) == ("fits", None)


def test_memory_near_its_end_asks_for_the_next_larger_profile():
    assert judge("middle", gib=15.0) == ("larger", "large")
    declared = {**SHELF, "middle": profile(4, "16Gi", 4.0, larger="huge")}
    assert judge("middle", declared, gib=15.0) == ("larger", "huge")
    assert judge("huge", gib=127.0) == ("larger", None)


def test_a_declared_larger_profile_that_is_not_large_enough_is_passed_over():
    declared = {**SHELF, "middle": profile(4, "16Gi", 4.0, larger="slightly"), "slightly": profile(4, "17Gi", 4.1)}
    assert judge("middle", declared, gib=16.0) == ("larger", "large")


def test_gpus_that_work_a_fifth_of_the_time_are_too_many():
    assert judge("gpu-4", gib=20.0, cores=4.0, gpus=4, gpu_utilisation=0.2) == ("smaller", "gpu-1")
    assert judge("gpu-4", gib=20.0, cores=4.0, gpus=4, gpu_utilisation=0.5)[1] is None


def test_gpus_that_wait_for_their_data_need_cores_and_not_fewer_gpus():
    assert judge("gpu-1", cores=7.9, gpus=1, gpu_utilisation=0.3, data_wait=0.4) == ("larger", "gpu-1-fat")
    assert judge("gpu-4", cores=4.0, gib=20.0, gpus=4, gpu_utilisation=0.2, data_wait=0.4)[1] is None


def test_a_gpu_profile_is_never_traded_for_one_without():
    assert judge("gpu-1", cores=0.5, gib=1.0, gpus=1, gpu_utilisation=0.9) == ("fits", None)


def test_other_law_other_place_and_spot_are_no_substitutes():
    shelf = {
        "here": profile(8), "abroad": profile(2, "8Gi", 1.0, jurisdiction="DE"), "away": profile(2, "8Gi", 1.0, region="dubai"),
        "spot": profile(2, "8Gi", 0.5, spot=True), "two": profile(2, "8Gi", 1.0, nodes=2),
    }  # fmt: skip
    assert judge("here", shelf) == ("smaller", None)


def test_too_short_without_its_gpus_or_unwatched_there_is_no_verdict():
    assert judge("huge", seconds=20.0) == ("unknown", None)
    assert judge("gpu-1", gpus=0) == ("unknown", None)
    assert advise("huge", profiles=SHELF, used=Used(peak_rss_bytes=5)).verdict == "unknown"


def test_the_ledgers_newest_watched_step_of_each_model_and_stage_is_judged():
    def entry(model, profile_name, began, seen):
        return Entry("r", "t", model, "model/trained", Asked(profile=profile_name), began, 3600.0, 3600.0, "done", seen)

    entries = [
        entry("a", "huge", 2.0, used(cores=1.5, gib=6.0)), entry("a", "small", 1.0, used(cores=2.0, gib=5.0)), entry("a", "huge", 3.0, Used()),
        entry("b", "small", 1.0, used(cores=2.0, gib=5.0)), entry("c", "no longer declared", 1.0, used()),
    ]  # fmt: skip
    found = advise_ledger(entries, profiles=SHELF)
    assert {model: advice.verdict for (model, _), advice in found.items()} == {"a": "smaller", "b": "fits"}


@given(
    name=st.sampled_from(sorted(SHELF)), cores=st.floats(0.01, 40), gib=st.floats(0.1, 300),
    gpus=st.sampled_from([{}, {"gpus": 1, "gpu_utilisation": 0.1}, {"gpus": 4, "gpu_utilisation": 0.9}]), wait=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_a_named_profile_fits_is_another_and_a_smaller_one_costs_no_more(name, cores, gib, gpus, wait):
    asked, seen = SHELF[name], used(cores=cores, gib=gib, data_wait=wait, **gpus)
    advice = advise(name, profiles=SHELF, used=seen)
    if advice.profile is None:
        return
    taken = SHELF[advice.profile]
    assert advice.profile != name
    assert taken.memory_bytes >= HEADROOM * seen.peak_memory_bytes
    assert (taken.accelerator is None) == (asked.accelerator is None)
    if advice.verdict == "smaller":
        assert taken.cpu >= HEADROOM * cores
        assert taken.price_aed_per_hour <= asked.price_aed_per_hour
    else:
        assert taken.cpu >= asked.cpu
        assert taken.gpus >= asked.gpus
