"""Events by webhook, over real HTTP: what is taken, what is refused and how that is told, and a server that is killed in between."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from gateway_site import Behind, run_gateway

from platform_assets.errors import SettingsError
from platform_assets.gateway.inbox import Inbox
from platform_assets.identity.limits import Buckets
from platform_assets.identity.webhooks import read_secret, sign_message
from platform_assets.specs.events import MOST_BYTES
from resources.events import INBOX, open_queue
from resources.senders import read_senders

CHECKOUT = Path(__file__).resolve().parents[3]
SECRET, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
LANDED, LABELS = "falaj.data.landed", "falaj.labels.landed"
CLIENT = httpx.Client(timeout=30)
JSON = {"Content-Type": "application/cloudevents+json"}


def write_senders(folder: Path) -> Path:
    for name, secret in (("warehouse", SECRET), ("clinic", OTHER)):
        (folder / name).write_text(secret + "\n")
        (folder / name).chmod(0o600)
    types = f'types = ["{LANDED}", "{LABELS}"]'
    file = folder / "senders.toml"
    file.write_text("".join(f'[{name}]\nsecret_file = "{folder / name}"\n{types}\n' for name in ("warehouse", "clinic")))
    return file


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("inbox")
    senders = read_senders(write_senders(folder))
    queue = open_queue(INBOX, url=None, path=folder / "events.sqlite")
    with run_gateway(folder, (), inbox=lambda guard: Inbox(senders, queue, guard)) as behind:
        yield behind


@pytest.fixture
def behind(gate: Behind) -> Behind:
    gate.forgive()
    gate.gateway.inbox.buckets = Buckets(per_second=1e6, burst=1e6)
    gate.gateway.guard._told = -1e9  # the next refusal is audited at once
    return gate


def event(name: str, **more) -> bytes:
    told = {
        "specversion": "1.0", "id": name, "source": "/warehouse", "type": LANDED, "time": datetime.now(UTC).isoformat(),
        "data": {"dataset": "hotels"},
    }  # fmt: skip
    return json.dumps({**told, **more}).encode()


def send(
    url: str, body: bytes, *, name: str = "m", sender: str = "warehouse", secret: str = SECRET, off: int = 0, **headers: str
) -> httpx.Response:
    signed = sign_message(name, body, at=int(time.time()) + off, secret=read_secret(secret))
    return CLIENT.post(f"{url}/events/{sender}", content=body, headers={**JSON, **signed, **headers})


def waiting(behind: Behind) -> list[str]:
    """Ids of what is in the inbox, in the order in which it came; each look is by a group of its own."""
    return [json.loads(one.body)["id"] for one in behind.gateway.inbox.queue.claim(os.urandom(4).hex(), most=1000)]


def said(reply: httpx.Response) -> str:
    (error,) = reply.json()["errors"]
    assert "\n" not in error["message"]
    return error["message"]


def test_a_signed_event_is_in_the_inbox_before_it_is_answered_and_the_same_again_is_no_second(behind: Behind) -> None:
    first, again = send(behind.url, event("one"), name="one"), send(behind.url, event("one"), name="one")
    assert (first.status_code, first.json()) == (202, {"event": "/warehouse#one", "taken": "now"})
    assert (again.status_code, again.json()) == (200, {"event": "/warehouse#one", "taken": "before"})
    assert waiting(behind).count("one") == 1
    assert send(behind.url, event("one", source="/clinic"), name="one", sender="clinic", secret=OTHER).status_code == 202, (
        "an id is its sender's"
    )


def test_messages_out_of_order_and_at_once_are_each_one_event(behind: Behind) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [f"n{number}" for number in range(20)] * 3
    random.Random(5).shuffle(names)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda name: send(behind.url, event(name), name=name).status_code, names))
    assert sorted(replies) == [200] * 40 + [202] * 20
    assert sorted(name for name in waiting(behind) if name.startswith("n")) == sorted(set(names))


@pytest.mark.parametrize(
    ("made", "status", "told"),
    [
        ({"body": b"{"}, 400, "not a CloudEvents 1.0 event in JSON"),
        ({"body": event("m", type="falaj.unheard.of")}, 400, "'falaj.unheard.of' is unknown"),
        ({"body": event("m", data={"model": "x"})}, 400, "data of falaj.data.landed: dataset"),
        ({"body": event("m", time=(datetime.now(UTC) - timedelta(days=8)).isoformat())}, 400, "older than 7 days"),
        ({"body": event("another")}, 400, "id: 'another' is not webhook-id, 'm'; a message is one event"),
        ({"body": event("m", source="/clinic")}, 403, "source: '/clinic' is not this sender's; right would be '/warehouse'"),
        ({"body": event("m", type="falaj.erasure.asked", data={"subject": "x"})}, 403, "may not be sent by warehouse; it may send falaj.data"),
        ({"body": event("m", data={"dataset": "x" * MOST_BYTES})}, 413, "at most 65536 bytes"),
        ({"body": event("m"), "secret": OTHER}, 401, "is of no secret that this sender has here"),
        ({"body": event("m"), "sender": "nobody"}, 401, "is of no secret that this sender has here"),
        ({"body": event("m"), "off": -400}, 400, "s behind this clock; at most 300 s are taken"),
        ({"body": event("m"), "off": 400}, 400, "s ahead of this clock"),
        ({"body": event("m"), "Content-Type": "application/cloudevents-batch+json"}, 415, "must be one event"),
        ({"body": event("m"), "Content-Encoding": "gzip"}, 415, "not compressed"),
        ({"body": event("m"), "webhook-id": "a b"}, 400, "webhook-id must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_counted_in_the_audit_log_and_no_event(behind: Behind, made: dict, status: int, told: str) -> None:
    before = waiting(behind)
    body = made.pop("body")
    reply = send(behind.url, body, **made)
    assert (reply.status_code, told in said(reply)) == (status, True), reply.text
    assert SECRET not in reply.text
    assert waiting(behind) == before
    (counted,) = behind.audited("denied")[-1]["detail"]["counts"]
    assert counted["why"].startswith("webhook: ")
    stranger = status in (401, 413, 415) or told.startswith(("webhook-id must", "s behind", "s ahead"))
    assert counted["who"] == ("nobody known" if stranger else "warehouse (webhook)")


def test_without_a_signature_nothing_is_told_of_who_may_send(behind: Behind) -> None:
    replies = [CLIENT.post(f"{behind.url}/events/{name}", content=event("m"), headers=JSON) for name in ("warehouse", "nobody")]
    assert [(reply.status_code, reply.text) for reply in replies] == [(400, replies[0].text)] * 2


def test_too_many_are_told_to_wait_and_guessing_locks_only_who_guesses_wrong(behind: Behind) -> None:
    behind.gateway.inbox.buckets = Buckets(per_second=0.01, burst=2)
    replies = [send(behind.url, event(f"r{number}"), name=f"r{number}") for number in range(3)]
    assert [reply.status_code for reply in replies] == [202, 202, 429]
    assert int(replies[-1].headers["retry-after"]) > 1
    guessed = [send(behind.url, event("g"), name="g", secret=OTHER).status_code for _ in range(12)]
    assert guessed == [401] * 9 + [429] * 3
    assert send(behind.url, event("c", source="/clinic"), name="c", sender="clinic", secret=OTHER).status_code == 202


def test_an_inbox_that_cannot_be_reached_is_no_2xx_and_the_message_is_taken_later(behind: Behind, tmp_path: Path) -> None:
    inbox = behind.gateway.inbox
    before = inbox.queue
    for queue in (
        open_queue(INBOX, url="redis://127.0.0.1:1/0", path=tmp_path),
        open_queue(INBOX, url=None, path=Path("/proc/no/e.sqlite")),
    ):
        inbox.queue = queue
        try:
            reply = send(behind.url, event("later"), name="later")
        finally:
            inbox.queue = before
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
        assert "Traceback" not in said(reply)
    assert send(behind.url, event("later"), name="later").status_code == 202


def test_a_secret_is_changed_while_messages_come(behind: Behind) -> None:
    file = behind.gateway.inbox.senders["warehouse"].secret_file
    try:
        file.write_text(f"{SECRET}\n{OTHER}\n")
        assert [send(behind.url, event("s"), name="s", secret=secret).status_code for secret in (SECRET, OTHER)] == [202, 200]
        file.write_text(OTHER)
        assert send(behind.url, event("s"), name="s").status_code == 401
        file.unlink()
        assert send(behind.url, event("s"), name="s").status_code == 503
    finally:
        file.write_text(SECRET)
        file.chmod(0o600)


KILLED = """
import os, signal, socket, sys
import uvicorn
from platform_assets.gateway.__main__ import build_gateway
from resources.settings import read_settings
opened = socket.socket(fileno=int(sys.argv[1]))
for moment in ("before", "after", "never"):  # it is killed; the next one takes its place on the same port
    if os.fork() == 0:
        gateway = build_gateway(read_settings(), [])
        gateway.hosts = frozenset({sys.argv[2]})
        publish = gateway.inbox.queue.publish
        def put(event, moment=moment):
            if moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            fresh = publish(event)
            if moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return fresh
        gateway.inbox.queue.publish = put
        uvicorn.Server(uvicorn.Config(gateway.app(), log_level="error")).run(sockets=[opened])
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_killed_between_receiving_and_answering_a_message_sent_again_is_exactly_one_event(request, tmp_path: Path, kind: str) -> None:
    url = request.getfixturevalue("redis_server") if kind == "redis" else ""
    if url:  # a database of its own on the session's server
        url = url.removesuffix("/0") + "/9"
    opened = socket.create_server(("127.0.0.1", 0))
    place = f"127.0.0.1:{opened.getsockname()[1]}"
    ours = {"FALAJ_HOME": str(tmp_path / "home"), "FALAJ_EVENTS": url, "FALAJ_SENDERS": str(write_senders(tmp_path))}
    server = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(opened.fileno()), place], cwd=CHECKOUT, pass_fds=[opened.fileno()], start_new_session=True,
        env={**os.environ, **ours, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    name = os.urandom(4).hex()
    try:
        for _ in range(2):  # the first is killed before it is in the inbox, the second after
            with pytest.raises(httpx.TransportError):
                send(f"http://{place}", event(name), name=name)
        replies = [send(f"http://{place}", event(name), name=name) for _ in range(2)]
    finally:
        os.killpg(server.pid, 9)
        server.wait()
        opened.close()
    assert [(reply.status_code, reply.json()["taken"]) for reply in replies] == [(200, "before")] * 2
    found = open_queue(INBOX, url=url or None, path=tmp_path / "home" / "events.sqlite").claim(name, most=1000)
    assert [json.loads(one.body)["id"] for one in found] == [name]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[warehouse", "is no TOML file"),
        ("[warehouse]\n", "warehouse.secret_file: is missing"),
        ('[warehouse]\nsecret_file = "/nowhere"\ntypes = ["falaj.data.landed"]', "there is no file '/nowhere'"),
        ('[warehouse]\nsecret_file = "LICENSE"\ntypes = []', "at least 1 item"),
        ('[warehouse]\nsecret_file = "LICENSE"\ntypes = ["falaj.release.made"]', "is no type that is taken in; right would be some of"),
        ('[warehouse]\nsecret_file = "LICENSE"\ntypes = ["falaj.data.landed"]\nspeed = 1', "is no setting"),
        ('["../x"]\nsecret_file = "LICENSE"\ntypes = ["falaj.data.landed"]', "is no name"),
    ],
)  # fmt: skip
def test_each_thing_wrong_with_the_file_of_senders_is_a_sentence(tmp_path: Path, monkeypatch, text: str, told: str) -> None:
    monkeypatch.chdir(CHECKOUT)
    (tmp_path / "senders.toml").write_text(text)
    with pytest.raises(SettingsError, match="wrong with the file of senders") as refused:
        read_senders(tmp_path / "senders.toml")
    assert any(told in str(fault) for fault in refused.value.faults), refused.value.faults


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [(SECRET, 0o644, "can be read by others; run: chmod 600"), ("", 0o600, "is empty"), ("secret", 0o600, "a line that is no secret")],
)
def test_a_secret_that_is_open_weak_or_missing_is_told_at_start(tmp_path: Path, content: str, mode: int, told: str) -> None:
    file = write_senders(tmp_path)
    (tmp_path / "clinic").write_text(content)
    (tmp_path / "clinic").chmod(mode)
    with pytest.raises(SettingsError) as refused:
        read_senders(file)
    (fault,) = refused.value.faults
    assert fault.field == "clinic.secret_file"
    assert told in fault.message
    assert SECRET not in str(fault)
