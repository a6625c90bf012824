"""What befell a pod, as a cluster tells it, and whether its step is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.placement.pod_ends import PodSeen, ended_in_silence, how_ended, never_started, what_keeps

words = st.text(max_size=300)
pods = st.builds(
    PodSeen, name=st.just("p"), reason=words, message=words, disrupted=st.booleans(), waiting=words, terminated=words,
    exit_code=st.none() | st.integers(0, 255),
)  # fmt: skip


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"])
def test_a_container_that_may_wait_for_ever_is_found_among_others(reason: str) -> None:
    keeps = PodSeen("b", waiting=reason)
    assert what_keeps([PodSeen("a", waiting="ContainerCreating"), keeps]) == keeps


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
def test_one_that_is_being_made_keeps_nobody(reason: str) -> None:
    assert what_keeps([PodSeen("a", waiting=reason)]) is None


def test_what_could_not_begin_is_not_tried_again() -> None:
    end = never_started(PodSeen("p", image="a/b:1", waiting="ErrImagePull", waiting_message="no such\n manifest."), waited_seconds=300.4)
    assert end.again is False
    assert end.sentence.startswith("Its image a/b:1 could not be pulled within 300 s (ErrImagePull: no such manifest); name an image")
    config = never_started(PodSeen("p", waiting="CreateContainerConfigError", waiting_message='secret "x" not found'), waited_seconds=9)
    assert "name a ConfigMap and a Secret that are in its namespace" in config.sentence


def test_the_cluster_takes_pods_away_by_several_names() -> None:
    assert how_ended([]).again is True
    assert how_ended([PodSeen("p", reason="Evicted", message="The node was low on memory.")]).again is True
    assert how_ended([PodSeen("p", disrupted=True, terminated="Error", exit_code=143)]).again is True
    assert how_ended([PodSeen("p", terminated="Error", exit_code=1)]).again is None


def test_an_eviction_for_memory_is_no_pods_own_want_of_it() -> None:
    assert how_ended([PodSeen("p", reason="Evicted", terminated="OOMKilled", exit_code=137)]).out_of_memory is False
    assert how_ended([PodSeen("p", terminated="OOMKilled", exit_code=137)]).out_of_memory is True


def test_a_job_that_ends_well_without_its_step_had_another_pod_or_a_process_that_said_nothing() -> None:
    ended = PodSeen("p", created=100.0, terminated="Completed", exit_code=0)
    assert ended_in_silence([ended], began=90.0).again is True  # somebody else began it
    assert ended_in_silence([PodSeen("o", created=80.0), ended], began=90.0).again is True
    assert ended_in_silence([ended], began=100.9).again is True  # Kubernetes cuts times to whole seconds; a pod needs longer to begin
    alone = ended_in_silence([ended], began=104.0)
    assert alone == ended_in_silence([ended], began=None)  # refused: it has no beginning of its own
    assert alone.again is None
    assert "ended with exit status 0 (Completed) before the step could say why" in alone.sentence
    assert ended_in_silence([], began=90.0) == how_ended([])


@given(st.lists(pods, max_size=3))
def test_every_end_is_one_short_line(found: list[PodSeen]) -> None:
    end = how_ended(found)
    assert end.sentence.endswith(".")
    assert len(end.sentence.splitlines()) == 1
    assert not (end.out_of_memory and end.again)
