"""One trace from a launch to the release that it made, over the processes of a real main job; predictions are linked to that release."""

from __future__ import annotations

import pytest
from pipeline.tiny import MODEL, Finished


@pytest.fixture(scope="module")
def by_id(finished: Finished) -> dict[str, dict]:
    return {one["id"]: one for one in finished.spans}


def way_up(span: dict, by_id: dict[str, dict]) -> list[str]:
    """Names from a span to the root of its trace; a parent that never arrived is a KeyError."""
    names = [span["name"]]
    while span["parent"]:
        inner, span = span, by_id[span["parent"]]
        assert span["trace"] == inner["trace"]
        names.append(span["name"])
    return names


def test_each_training_process_hangs_on_its_step_its_run_and_what_launched_it(finished: Finished, by_id: dict[str, dict]) -> None:
    trainings = [one for one in finished.spans if one["name"] == "training process"]
    ways = [way_up(one, by_id) for one in trainings]
    of_run = ["training process", f"step model/{MODEL}/trained", f"run {MODEL}__train"]
    of_sweep = ["training process", f"step model/{MODEL}/sweep", f"run {MODEL}__sweep"]  # another test sweeps in this home
    assert [way for way in ways if way[:3] not in (of_run, of_sweep)] == []
    launched = {tuple(way[3:]) for way in ways if way[:3] == of_run}
    assert launched == {(), (f"launch {MODEL}__train",)}  # by the person who typed, and by the sensor
    assert {one["service"] for one in trainings} == {"falaj-trainer"}


def test_steps_of_one_run_are_one_trace_and_name_run_and_model(finished: Finished, by_id: dict[str, dict]) -> None:
    steps = [one for one in finished.spans if one["name"].startswith(f"step model/{MODEL}/")]
    assert {"trained", "candidates", "release", "deployed", "drift_report"} <= {one["name"].rpartition("/")[2] for one in steps}
    for one in steps:
        run = by_id[one["parent"]]
        assert one["attributes"]["run"] == run["attributes"]["run"]
        assert one["attributes"]["model"] == MODEL
        assert run["start"] <= one["start"] <= one["end"] <= run["end"]


def test_predictions_are_linked_to_the_step_that_made_the_release_which_answered(finished: Finished, by_id: dict[str, dict]) -> None:
    answers = [one for one in finished.spans if one["name"] == f"predict {MODEL}"]
    assert answers
    made = {link for one in answers for link in one["links"]}
    assert {by_id[span]["name"] for _, span in made} == {f"step model/{MODEL}/release"}
    assert len({(one["attributes"]["version"], one["links"][0]) for one in answers}) == len(made)  # each release its own step
