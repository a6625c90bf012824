"""Every serving target keeps the same promises: in memory, and a real server process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import MODEL, Server

from platform_assets.errors import ServingError
from platform_assets.ports import ServingTarget
from platform_assets.specs.records import ArmFigures
from resources.testing.serving import TINY_ROW, MemoryServing


class Case:
    """A target, two good releases, a bad one, and a way to send one request."""

    target: ServingTarget
    good: tuple[str, str]
    bad: str

    def send(self, answering: str) -> None:
        raise NotImplementedError


class InMemory(Case):
    def __init__(self, folder: Path) -> None:
        self.good, self.bad = ("a" * 64, "b" * 64), "c" * 64
        self.target = MemoryServing(set(self.good))
        self.folder = folder

    def send(self, answering: str) -> None:
        self.target.count(MODEL, answering)
        segment = self.folder / f"{len(self.target.log_segments)}.jsonl"
        segment.write_text("{}\n")
        self.target.log_segments.append(segment)


class Process(Case):
    def __init__(self, server) -> None:
        self.server = server
        self.target = server.target
        self.good = server.releases.make(1), server.releases.make(2)
        self.bad = server.releases.make(3, altered_answers=0.1)

    def send(self, answering: str) -> None:
        with self.server.client() as client:
            assert client.predict(MODEL, [TINY_ROW])["version"] == answering[:12]


@pytest.fixture(params=["memory", "process"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    if request.param == "memory":
        yield InMemory(tmp_path)
        return
    server = Server(tmp_path)
    server.start()
    yield Process(server)
    assert server.kill(signal.SIGTERM) == ""


def test_an_unknown_model_has_nothing_live(case):
    status = case.target.status(MODEL)
    assert (status["live"], status["challenger"], status["mode"], status["percent"], status["arms"]) == (None, None, "live", 0, {})


def test_a_bad_release_is_refused_and_changes_nothing(case):
    case.target.load(MODEL, case.good[0])
    case.target.set_traffic(MODEL, live=case.good[0])
    before = case.target.status(MODEL)
    with pytest.raises(ServingError):
        case.target.load(MODEL, case.bad)
    with pytest.raises(ServingError):
        case.target.set_traffic(MODEL, live=case.bad)
    assert case.target.status(MODEL) == before


def test_traffic_is_read_back_as_it_was_set(case):
    old, new = case.good
    for digest in (old, new, new):
        case.target.load(MODEL, digest)
    for mode, percent in (("shadow", 0), ("canary", 25)):
        case.target.set_traffic(MODEL, live=old, challenger=new, mode=mode, percent=percent)
        status = case.target.status(MODEL)
        assert (status["live"], status["challenger"], status["mode"], status["percent"]) == (old, new, mode, percent)
        assert set(status["arms"]) == {old, new}
        assert (status["compared_rows"], status["disagreements"]) == (0, 0)
    case.target.set_traffic(MODEL, live=new)
    case.target.set_traffic(MODEL, live=old)
    assert case.target.status(MODEL)["live"] == old


def test_figures_begin_anew_with_a_change_of_traffic(case):
    digest = case.good[0]
    case.target.load(MODEL, digest)
    case.target.set_traffic(MODEL, live=digest)
    case.send(digest)
    arm = case.target.arms(MODEL)[digest]
    assert isinstance(arm, ArmFigures)
    assert (arm.version, arm.requests, arm.rows, arm.errors) == (digest[:12], 1, 1, 0)
    assert 0 < arm.latency_ms_p50 <= arm.latency_ms_p99
    assert sum(pace.cpu_seconds for pace in arm.paces) > 0
    assert sum(sum(pace.latency_counts) for pace in arm.paces) == sum(arm.latency_counts) == 1
    case.target.set_traffic(MODEL, live=digest)
    assert case.target.arms(MODEL)[digest].requests == 0


def test_closed_segments_of_the_log_come_oldest_first_and_stay_until_removed(case):
    digest = case.good[0]
    case.target.load(MODEL, digest)
    case.target.set_traffic(MODEL, live=digest)
    case.send(digest)
    first = case.target.rotate_log(MODEL)
    case.send(digest)
    second = case.target.rotate_log(MODEL)
    assert len(first) == 1
    assert second[:1] == first
    assert len(second) == 2
    assert all(segment.read_text().count("\n") == 1 for segment in second)


def test_every_answered_row_is_counted_and_none_is_missing(case):
    digest = case.good[0]
    case.target.load(MODEL, digest)
    case.target.set_traffic(MODEL, live=digest)
    assert case.target.log_counts(MODEL).accepted == 0
    for _ in range(3):
        case.send(digest)
    case.target.rotate_log(MODEL)
    counts = case.target.log_counts(MODEL)
    assert (counts.accepted, counts.written, counts.missing, counts.waiting) == (3, 3, 0, 0)
