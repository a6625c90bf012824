"""What every queue of events promises: each group gets each event at least once, an id counts once, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from redis_process import run_redis

from platform_assets.errors import EventError
from platform_assets.specs.events import Event
from resources.events import open_queue
from resources.events.sqlite_queue import MOST_ATTEMPTS

CHECKOUT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """URL and file of a fresh queue's home."""
    return (request.getfixturevalue("redis_server") if request.param == "redis" else None), tmp_path / "events.sqlite"


@pytest.fixture
def queue(place):
    url, path = place
    return open_queue(uuid4().hex, url=url, path=path)


def event(number: int, **more) -> Event:
    told = {"id": f"n{number}", "source": "/tests", "type": "falaj.retraining.asked", "time": NOW, "data": {"model": f"m{number}"}}
    return Event(**{**told, **more})


def ids(deliveries) -> list[str]:
    return [json.loads(one.body)["id"] for one in deliveries]


def test_events_come_in_order_to_every_group_and_not_again_once_acknowledged(queue):
    for number in range(5):
        assert queue.publish(event(number))
    first = queue.claim("a", most=3)
    assert ids(first) == ["n0", "n1", "n2"]
    queue.acknowledge("a", [one.token for one in first])
    assert ids(queue.claim("a")) == ["n3", "n4"]
    assert queue.claim("a") == []
    assert ids(queue.claim("b")) == ["n0", "n1", "n2", "n3", "n4"]
    assert (queue.waiting("a"), queue.waiting("b"), queue.waiting("c")) == (2, 5, 5)


def test_an_id_counts_once_a_source(queue):
    assert queue.publish(event(1))
    assert not queue.publish(event(1, data={"model": "another"}))
    assert queue.publish(event(1, source="/others"))
    assert len(queue.claim("a")) == 2


def test_what_is_not_answered_for_comes_again_and_at_last_is_a_dead_letter(queue):
    queue.publish(event(1))
    for attempt in range(1, MOST_ATTEMPTS + 1):
        (delivery,) = queue.claim("a", lease_seconds=0.01)
        assert delivery.attempt == attempt
        time.sleep(0.03)
    assert queue.claim("a", lease_seconds=0.01) == []
    (letter,) = queue.dead("a")
    assert "never answered for" in letter.why
    assert json.loads(letter.body)["id"] == "n1"
    assert queue.waiting("a") == 0


def test_a_held_delivery_is_nobody_elses_within_its_lease(queue):
    queue.publish(event(1))
    assert len(queue.claim("a", lease_seconds=60)) == 1
    assert queue.claim("a", lease_seconds=60) == []


def test_a_dead_letter_can_be_handed_out_again(queue):
    queue.publish(event(1))
    queue.publish(event(2))
    one, two = queue.claim("a")
    queue.bury("a", one.token, "model: unknown")
    queue.acknowledge("a", [two.token])
    (letter,) = queue.dead("a")
    assert letter.why == "model: unknown"
    assert queue.claim("a") == []
    queue.replay("a", letter.token)
    assert queue.dead("a") == []
    (again,) = queue.claim("a")
    assert (ids([again]), again.attempt) == (["n1"], 1)
    queue.acknowledge("a", [again.token])
    assert queue.waiting("a") == 0
    with pytest.raises(EventError, match="no dead letter"):
        queue.replay("a", letter.token)
    assert ids(queue.claim("b")) == ["n1", "n2"], "another group's letters are its own"


def test_an_unknown_token_changes_nothing(queue):
    queue.publish(event(1))
    queue.acknowledge("a", ["12345"])
    assert len(queue.claim("a")) == 1


CONSUMER = """
import json, sqlite3, sys
from pathlib import Path
from resources.events import open_queue
name, url, path, ledger = sys.argv[1:]
queue = open_queue(name, url=url or None, path=Path(path))
acted = sqlite3.connect(ledger, isolation_level=None, timeout=30)
while True:
    found = queue.claim("a", most=50, lease_seconds=0.2)
    for one in found:
        acted.execute("INSERT OR IGNORE INTO acted VALUES (?)", (json.loads(one.body)["id"],))
    queue.acknowledge("a", [one.token for one in found])
"""


@pytest.mark.slow
def test_ten_thousand_events_with_the_consumer_killed_ten_times(queue, place, tmp_path):
    """None lost; what is handed out twice is known by its id, so none is acted on twice."""
    url, path = place
    total, ledger = 10_000, tmp_path / "acted.sqlite"
    with sqlite3.connect(ledger) as acted:
        acted.executescript("PRAGMA journal_mode=WAL; CREATE TABLE acted (id TEXT PRIMARY KEY);")
    name = queue._name
    chance = random.Random(7)
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, name, url or "", str(path), str(total)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    killed = 0
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            consumer = subprocess.Popen(
                [sys.executable, "-c", CONSUMER, name, url or "", str(path), str(ledger)], cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            )  # fmt: skip
            time.sleep(0.8 + 0.6 * chance.random() if killed < 10 else 0)
            while killed >= 10 and time.monotonic() < deadline and (publisher.poll() is None or queue.waiting("a")):
                time.sleep(0.2)
            consumer.send_signal(signal.SIGKILL)
            consumer.wait()
            killed += 1
            if killed > 10:
                break
    finally:
        publisher.wait(120)
    with sqlite3.connect(ledger) as acted:
        found = {row[0] for row in acted.execute("SELECT id FROM acted")}
    assert found == {f"n{number}" for number in range(total)}
    assert queue.dead("a") == []
    assert queue.waiting("a") == 0
    assert killed > 10


PUBLISHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from platform_assets.specs.events import Event
from resources.events import open_queue
name, url, path, total = sys.argv[1:]
queue = open_queue(name, url=url or None, path=Path(path))
for number in range(int(total)):
    queue.publish(Event(id=f"n{number}", source="/tests", type="falaj.retraining.asked", time=datetime.now(UTC), data={"model": "m"}))
"""


def test_a_redis_that_was_stopped_is_named_and_goes_on_where_it_was(tmp_path, redis_server):
    del redis_server  # skips where there is none
    with run_redis(tmp_path) as url:
        queue = open_queue("q", url=url, path=tmp_path / "unused")
        queue.publish(event(1))
        assert len(queue.claim("a", lease_seconds=0.01)) == 1
    with pytest.raises(EventError, match="does not answer"):
        queue.publish(event(2))
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with run_redis(tmp_path, port=port):
        assert ids(queue.claim("a", lease_seconds=0.01)) == ["n1"]
        assert queue.publish(event(2))
    (tmp_path / "appendonlydir").rename(tmp_path / "gone")
    with run_redis(tmp_path, port=port):  # emptied: what was in it is gone with it, and the queue works
        assert queue.claim("a") == []
        assert queue.publish(event(3))
        assert ids(queue.claim("a")) == ["n3"]


def test_a_url_of_another_kind_is_refused_without_its_password(tmp_path):
    with pytest.raises(EventError, match="redis://HOST") as refused:
        open_queue("q", url="amqp://user:canary@localhost", path=tmp_path / "e")
    assert "canary" not in str(refused.value)


def test_never_more_than_asked_for_are_handed_out_also_of_replayed_ones(queue):
    for number in range(3):
        queue.publish(event(number))
    for one in queue.claim("a", most=2):
        queue.bury("a", one.token, "wrong")
    for letter in queue.dead("a"):
        queue.replay("a", letter.token)
    assert len(queue.claim("a", most=2)) == 2
    assert len(queue.claim("a", most=2)) == 1


def test_erased_events_come_to_nobody_also_those_handed_out_and_dead(queue):
    told = {0: {"model": "m", "why": "ann"}, 1: {"model": "m", "why": "anna"}, 2: {"model": "ann"}, 3: {"model": "m"}}
    for number, data in told.items():
        queue.publish(event(number, data=data))
    out = queue.claim("a", most=1, lease_seconds=0.0)
    queue.bury("a", out[0].token, "no")
    assert queue.erase(["ann", "nobody"]) == 2
    assert queue.dead("a") == []
    assert ids(queue.claim("a")) == ["n1", "n3"]
    assert ids(queue.claim("b")) == ["n1", "n3"]
    assert queue.erase(["ann"]) == 0
