"""An API server that is away is waited for, so long and no longer; what it refuses is not asked again."""

from __future__ import annotations

import pytest
from urllib3.exceptions import MaxRetryError

from resources.dagster_instance import k8s_patience
from resources.dagster_instance.k8s_patience import patiently


class Server:
    """Away for its first few askers."""

    def __init__(self, away: int, error: Exception) -> None:
        self.left, self.error, self.asked = away, error, 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.left:
            raise self.error
        return "made"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(k8s_patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(k8s_patience.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_an_answer_is_waited_for() -> None:
    server = Server(20, MaxRetryError(None, "/jobs", None))  # type: ignore[arg-type]
    assert patiently(server.ask, seconds=60) == "made"
    assert server.asked == 21


def test_it_is_waited_for_no_longer_than_declared(clock: list[float]) -> None:
    server = Server(10**6, MaxRetryError(None, "/jobs", None))  # type: ignore[arg-type]
    with pytest.raises(MaxRetryError):
        patiently(server.ask, seconds=60)
    assert 60 < clock[0] < 63


def test_a_refusal_is_an_answer() -> None:
    server = Server(1, ValueError("forbidden"))
    with pytest.raises(ValueError, match="forbidden"):
        patiently(server.ask, seconds=60)
    assert server.asked == 1
