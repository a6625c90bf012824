"""A run of the queue whose step failed since its database was away is asked for again, so often and no more."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._utils.error import SerializableErrorInfo

from resources.dagster_instance.gate import AGAIN_TAG, NOT_TRIED_AGAIN, TRIED_AGAIN, ask_again, is_tried_again


def error(name: str, *, cause: SerializableErrorInfo | None = None) -> SerializableErrorInfo:
    return SerializableErrorInfo(f"{name}: x", [], name, cause=cause)


AWAY = error("OperationalError")
EVENT = {"falaj/event": "/a#1", "falaj/trigger": "event", "falaj/actor": "event from /a", "falaj/process": "1:2", "falaj/hold": "no"}


def run(**tags: str) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="m__train", run_id="r", tags={**EVENT, **TRIED_AGAIN, **tags})


def test_it_is_the_same_job_for_the_same_reason_and_counts():
    found = ask_again(run(), [error("DagsterExecutionStepExecutionError", cause=AWAY)])
    assert (found.job_name, found.run_key, found.asset_selection) == ("m__train", "again:r", None)
    assert found.tags == {"falaj/event": "/a#1", "falaj/trigger": "event", "falaj/actor": "event from /a", AGAIN_TAG: "1"}
    assert ask_again(run(**{AGAIN_TAG: "1"}), [AWAY]).tags[AGAIN_TAG] == "2"
    selected = dg.DagsterRun(job_name="m__train", run_id="r", tags=TRIED_AGAIN, asset_selection={dg.AssetKey("b"), dg.AssetKey("a")})
    assert ask_again(selected, [AWAY]).asset_selection == [dg.AssetKey("a"), dg.AssetKey("b")]


@pytest.mark.parametrize(
    ("tags", "errors"),
    [
        ({AGAIN_TAG: "2"}, [AWAY]),
        (NOT_TRIED_AGAIN, [AWAY]),
        ({}, [error("Failure")]),
        ({}, [None]),
        ({}, []),
    ],
    ids=["twice", "main job", "wrong", "no error", "no step"],
)
def test_anything_else_is_not(tags, errors):
    assert ask_again(run(**tags), errors) is None


def test_what_falaj_run_executes_itself_is_not_asked_of_the_queue():
    assert ask_again(dg.DagsterRun(job_name="m__train", run_id="r", tags=EVENT), [AWAY]) is None


@pytest.mark.parametrize(
    ("status", "tags", "goes_on"),
    [
        ("FAILURE", {"dagster/will_retry": "true"}, True),
        ("FAILURE", {"dagster/will_retry": "false"}, False),
        ("FAILURE", {}, True),
        ("FAILURE", NOT_TRIED_AGAIN, False),
        ("SUCCESS", {}, False),
        ("CANCELED", {}, False),
    ],
)
def test_a_failed_run_may_go_on_until_it_is_written_down_that_it_does_not(status, tags, goes_on):
    assert is_tried_again(dg.DagsterRun(job_name="m", status=dg.DagsterRunStatus[status], tags={**TRIED_AGAIN, **tags})) is goes_on
