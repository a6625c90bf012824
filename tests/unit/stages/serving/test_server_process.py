"""A real server process: protocol, rights, swaps, drain, kill."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import jwt
import numpy as np
import pytest
from serving_process import MODEL, Server

from platform_assets.errors import AccessError, RequestError, ServingError
from platform_assets.stages.serving.v2 import write_texts
from resources.incidents import take_over
from resources.serving import PredictClient, connect, find_server, log_lines, server_command
from resources.testing.serving import TINY_ROW
from resources.testing.state import MemoryAuditLog

PATH = f"/v1/models/{MODEL}:predict"
BODY = json.dumps({"rows": [TINY_ROW]}).encode()


def ask(server: Server, method: str, path: str, body: bytes | None = None, **head: str) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    connection.request(method, path, body=body, headers={name.replace("_", "-"): value for name, value in head.items()})
    reply = connection.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read()
    connection.close()
    return found


def raw(server: Server, data: bytes) -> bytes:
    with socket.create_connection(server.address, timeout=10) as stream:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        parts = []
        while part := stream.recv(65536):
            parts.append(part)
    return b"".join(parts)


def logged(server: Server) -> list[dict]:
    segments = log_lines(server.settings.home.serving / "log" / MODEL)
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def test_a_row_alone_is_answered_as_in_a_batch_and_every_row_is_logged_once(live):
    rows = [{**TINY_ROW, "booking_id": f"b{at}", "lead_time": at} for at in range(40)]
    with live.client() as client:
        together = client.predict(MODEL, rows)["predictions"]
        alone = [client.predict(MODEL, [row])["predictions"][0] for row in rows]
    assert [p["label"] for p in together] == [p["label"] for p in alone]
    assert max(abs(a["probability"] - b["probability"]) for a, b in zip(together, alone, strict=True)) < 1e-6
    live.target.rotate_log(MODEL)
    found = logged(live)
    assert Counter(line["key"] for line in found) == {f"b{at}": 2 for at in range(40)}
    assert len({line["prediction_id"] for line in found}) == 80


def test_features_of_other_entities_come_from_the_online_store_unless_given(live):
    import sqlite3

    file = live.settings.home.feast / "online.sqlite"
    file.parent.mkdir(parents=True)
    with sqlite3.connect(file) as store:
        store.execute("CREATE TABLE market_demand (__entity TEXT PRIMARY KEY, __event_us INTEGER, mean_adr_90d REAL)")
        store.execute("INSERT INTO market_demand VALUES ('Direct', 0, 123.5)")
    row = {"market_segment": "Direct", "lead_time": 3}
    with live.client() as client:
        looked_up, given, unknown = (
            client.predict(MODEL, [asked])["predictions"][0]["probability"]
            for asked in (row, {**row, "mean_adr_90d": 123.5}, {**row, "mean_adr_90d": None})
        )
    assert looked_up == given != unknown
    live.target.rotate_log(MODEL)
    assert [line["inputs"]["mean_adr_90d"] for line in logged(live)] == [123.5, 123.5, None]


def test_the_open_inference_protocol_answers_as_named_columns_do(live):
    with live.client() as client:
        named = client.predict(MODEL, [TINY_ROW])["predictions"][0]
        assert client.request("GET", "/v2/health/live") == {"live": True}
        assert client.request("GET", "/v2/health/ready") == {"ready": True}
        assert client.request("GET", f"/v2/models/{MODEL}/ready")["ready"]
        described = client.request("GET", f"/v2/models/{MODEL}")
        assert [(t["name"], t["datatype"], t["shape"]) for t in described["inputs"]] == [
            ("numeric", "FP32", [-1, 4]),
            ("categorical", "BYTES", [-1, 1]),
        ]
        tensors = [
            {"name": "numeric", "datatype": "FP32", "shape": [1, 4], "data": [[30, 80.5, 16983, 90.0]]},
            {"name": "categorical", "datatype": "BYTES", "shape": [1, 1], "data": ["Online TA"]},
        ]
        found = client.request("POST", f"/v2/models/{MODEL}/infer", {"id": "mine", "inputs": tensors})
        assert (found["id"], found["model_version"]) == ("mine", described["versions"][0])
        outputs = {tensor["name"]: tensor for tensor in found["outputs"]}
        assert outputs["probabilities"]["data"] == pytest.approx(list(named["probabilities"].values()), abs=1e-6)
        assert outputs["label"]["data"] == [named["label"]]
        for broken in (
            {**tensors[0], "shape": [2, 4]},
            {**tensors[0], "datatype": "BYTES"},
            {**tensors[0], "data": [["x"] * 4]},
            {"name": "nobody"},
        ):
            with pytest.raises(RequestError, match="input"):
                client.request("POST", f"/v2/models/{MODEL}/infer", {"inputs": [broken, tensors[1]]})
        huge = {**tensors[0], "data": [1, 1, 1e30, 1]}
        client.request("POST", f"/v2/models/{MODEL}/infer", {"inputs": [huge, tensors[1]]})
    live.target.rotate_log(MODEL)
    assert len(logged(live)) == 3


def test_binary_tensors_are_answered_in_binary_as_json_is_and_logged(live):
    numbers = np.array([[30, 80.5, 16983, 90.0], [1, 2, np.nan, 4]], dtype=np.float32)
    blobs = [numbers.tobytes(), write_texts(["Online TA", ""])]
    inputs = [
        {"name": "numeric", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": len(blobs[0])}},
        {"name": "categorical", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(blobs[1])}},
    ]
    head = json.dumps({"id": "b", "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    with live.client() as client:
        described = client.request("GET", "/v2")
        rows = [TINY_ROW, {"lead_time": 1, "adr": 2, "mean_adr_90d": 4}]
        named = [list(one["probabilities"].values()) for one in client.predict(MODEL, rows)["predictions"]]
    assert "binary_tensor_data" in described["extensions"]
    status, fields, body = ask(
        live, "POST", f"/v2/models/{MODEL}/infer", head + b"".join(blobs), inference_header_content_length=str(len(head))
    )
    assert (status, fields["content-type"]) == (200, "application/octet-stream")
    length = int(fields["inference-header-content-length"])
    outputs = json.loads(body[:length])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [16, 10]
    assert np.frombuffer(body[length : length + 16], dtype=np.float32).reshape(2, 2) == pytest.approx(np.array(named), abs=1e-6)
    live.target.rotate_log(MODEL)
    last = logged(live)[-1]
    assert last["inputs"] == {"lead_time": 1.0, "adr": 2.0, "arrival_date": None, "mean_adr_90d": 4.0, "market_segment": None}


def test_a_request_that_cannot_be_answered_in_time_is_told_so_at_once(live):
    status, fields, body = ask(live, "POST", PATH, BODY, x_timeout_ms="0")
    assert status == 400
    assert b"x-timeout-ms" in body
    assert ask(live, "POST", PATH, BODY, x_timeout_ms="5000")[0] == 200
    tensors = [
        {"name": "numeric", "datatype": "FP32", "shape": [1, 4], "data": [30, 80.5, 16983, 90.0]},
        {"name": "categorical", "datatype": "BYTES", "shape": [1, 1], "data": ["Online TA"]},
    ]
    late = json.dumps({"inputs": tensors, "parameters": {"timeout": 1}}).encode()
    status, fields, body = ask(live, "POST", f"/v2/models/{MODEL}/infer", late)
    assert (status, fields["retry-after"]) == (503, "1")
    assert b"deadline" in body


def test_people_and_prometheus_can_look(live):
    with live.client() as client:
        client.predict(MODEL, [TINY_ROW])
        client.request("GET", "/status")
    status, head, page = ask(live, "GET", "/")
    assert (status, head["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"Falaj inference server" in page
    metrics = ask(live, "GET", "/metrics")[2].decode()
    assert 'falaj_requests{model="tiny"' in metrics
    assert 'le="+Inf"} 1' in metrics
    assert "date" in head


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 2_000_000, 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
        (b"GET " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", 401),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 1.2.3.4\r\n\r\n", 401),
    ],
)
def test_broken_http_is_answered_with_its_4xx(live, data, status):
    assert raw(live, data).startswith(b"HTTP/1.1 %d " % status)
    assert ask(live, "POST", PATH, BODY)[0] == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'{"rows": []}', b'{"rows": {}}', b'{"rows": [1]}', b'{"rows": [{}], "columns": {}}', b'{"columns": {"adr": 1}}',
     b'{"rows": [{"adr": 1e999}]}', b'{"rows": [{"adr": NaN}]}', b"\xff\xfe", b"[" * 5000, b'{"rows": [{"nope": 1}]}', b'{"instances": [1]}'],
)  # fmt: skip
def test_a_wrong_body_is_a_400_in_one_sentence(live, body):
    status, _, answer = ask(live, "POST", PATH, body)
    assert status == 400
    assert json.loads(answer)["error"]


def test_pipelined_and_chunked_requests_are_answered_in_order(live):
    head = b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\n"
    one = head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    chunked = head + b"transfer-encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    health = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = raw(live, (one + health + chunked) * 100)
    assert answer.count(b"HTTP/1.1 200 OK") == 300
    kinds = [b"live" if b'{"live":true}' in part else b"predict" for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert kinds == [b"predict", b"live", b"predict"] * 100


def test_rights_are_by_peer_and_by_scope(live):
    def status(token: str | None, path: str = PATH, method: str = "POST") -> int:
        return ask(live, method, path, BODY, **({} if token is None else {"authorization": f"Bearer {token}"}))[0]

    keys = live.settings.home.keys
    private = (keys / "tokens.key.pem").read_text()
    assert (keys / "tokens.key.pem").stat().st_mode & 0o777 == 0o600
    claims = jwt.decode(live.token("predict"), options={"verify_signature": False})
    public = base64.b64encode((keys / "tokens.pub.pem").read_bytes())
    unsigned = jwt.encode(claims, None, algorithm="none")
    confused = jwt.encode(claims, public, algorithm="HS256")
    later = jwt.encode({**claims, "scope": "admin", "exp": claims["exp"] + 1}, private, algorithm="EdDSA")
    forged = ".".join([later.split(".")[0], later.split(".")[1], live.token("predict").split(".")[2]])
    for bad in (unsigned, confused, forged, live.token("predict", seconds=-5), live.token("predict", audience="other"), "x", "a.b.c", "é"):
        assert status(bad.encode().decode("latin-1")) == 401
    for lacking in ("exp", "aud", "scope", "iss"):
        assert status(jwt.encode({k: v for k, v in claims.items() if k != lacking}, private, algorithm="EdDSA")) == 401
    assert ask(live, "POST", PATH, BODY, authorization="Basic abc")[0] == 401
    assert [status(token) for token in (None, live.token("predict"), live.token(f"predict:{MODEL}"))] == [200, 200, 200]
    assert [status(token) for token in (live.token("predict:other"), live.token("admin"))] == [403, 403]
    admin = f"/admin/models/{MODEL}"
    assert [status(token, admin, "GET") for token in (None, live.token("predict"), live.token("admin"))] == [401, 403, 200]


def test_another_host_than_loopback_makes_tokens_mandatory(tmp_path):
    server = Server(tmp_path)
    server.start("--host", "0.0.0.0")
    try:
        server.deploy()
        assert ask(server, "POST", PATH, BODY)[0] == 401
        assert ask(server, "GET", "/v2/health/ready")[0] == 200
        assert ask(server, "POST", PATH, BODY, authorization=f"Bearer {server.token('predict')}")[0] == 200
    finally:
        assert server.kill(signal.SIGTERM) == ""


def test_fifty_swaps_under_load_drop_no_request_and_answer_with_a_version_in_service(live):
    digests = [live.target.status(MODEL)["live"], live.releases.make(2)]
    live.target.load(MODEL, digests[1])
    stop = threading.Event()
    seen: Counter[str] = Counter()

    def load() -> None:
        with live.client() as client:
            while not stop.is_set():
                seen[client.predict(MODEL, [TINY_ROW])["version"]] += 1

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load) for _ in range(4)]
        for at in range(50):
            live.target.set_traffic(MODEL, live=digests[at % 2 - 1])
        stop.set()
        for job in jobs:
            job.result()
    assert set(seen) == {digest[:12] for digest in digests}
    live.target.rotate_log(MODEL)
    assert Counter(line["version"] for line in logged(live)) == seen


def test_a_shadow_never_changes_an_answer_and_is_compared(live):
    old, new = live.target.status(MODEL)["live"], live.releases.make(3)
    live.target.load(MODEL, new)
    rows = [{**TINY_ROW, "lead_time": at} for at in range(100)]
    with live.client() as client:
        before = client.predict(MODEL, rows)["predictions"]
        live.target.set_traffic(MODEL, live=old, challenger=new, mode="shadow")
        assert client.predict(MODEL, rows)["predictions"] == before
        until = time.monotonic() + 10
        while (status := live.target.status(MODEL))["compared_rows"] < 100 and time.monotonic() < until:
            time.sleep(0.02)
        live.target.set_traffic(MODEL, live=new)
        after = client.predict(MODEL, rows)["predictions"]
    assert status["compared_rows"] == 100
    assert status["disagreements"] == sum(a["label"] != b["label"] for a, b in zip(before, after, strict=True)) > 0
    assert status["arms"][new].requests == 1


def test_a_canary_that_fails_is_counted_and_the_champion_answers(live):
    old, new = live.target.status(MODEL)["live"], live.releases.make(3, breaks_at=13.0)
    live.target.load(MODEL, new)
    live.target.set_traffic(MODEL, live=old, challenger=new, mode="canary", percent=100)
    with live.client() as client:
        assert client.predict(MODEL, [TINY_ROW])["version"] == new[:12]
        assert client.predict(MODEL, [{**TINY_ROW, "lead_time": 13}])["version"] == old[:12]
    assert live.target.arms(MODEL)[new].errors == 1


def test_a_poisoned_release_never_reaches_a_user(live):
    before = live.target.status(MODEL)
    poisoned = live.releases.make(4, altered_answers=0.02)
    with pytest.raises(ServingError, match="differ from the recorded ones"):
        live.target.load(MODEL, poisoned)
    with pytest.raises(ServingError, match="not loaded"):
        live.target.set_traffic(MODEL, live=poisoned)
    assert live.target.status(MODEL) == before


def test_sigterm_under_load_answers_what_was_accepted(live):
    answered: list[str] = []
    ended: list[str] = []

    def load() -> None:
        with PredictClient(live.url) as client:
            while True:
                try:
                    answered.append(client.predict(MODEL, [TINY_ROW])["request_id"])
                except ServingError as error:
                    ended.append(str(error))
                    return

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(load) for _ in range(4)]
        time.sleep(0.5)
        assert live.kill(signal.SIGTERM) == ""
        for job in jobs:
            job.result()
    assert live.process.returncode == 0
    assert all("refused" in sentence for sentence in ended)  # a new connection is refused; none that was taken is lost
    assert Counter(line["request_id"] for line in logged(live)) == Counter(answered)


def test_after_sigkill_only_the_last_second_of_log_is_gone_and_the_restart_goes_on(live):
    with live.client() as client:
        early = [client.predict(MODEL, [TINY_ROW])["request_id"] for _ in range(50)]
        time.sleep(1.1)
        late = [client.predict(MODEL, [TINY_ROW])["request_id"] for _ in range(50)]
    status = live.target.status(MODEL)
    live.kill(signal.SIGKILL)
    with pytest.raises(ServingError, match="falaj up"):
        live.target.status(MODEL)
    live.start()
    assert {line["request_id"] for line in logged(live)} >= set(early)
    assert {line["request_id"] for line in logged(live)} <= {*early, *late}
    assert live.target.status(MODEL)["live"] == status["live"]
    with live.client() as client:
        client.predict(MODEL, [TINY_ROW])


def test_a_release_altered_on_disk_is_not_served_after_a_restart(live):
    digest = live.target.status(MODEL)["live"]
    live.kill(signal.SIGTERM)
    (live.releases.path(digest) / "files" / "schema.json").write_text("{}")
    live.start()
    with live.client() as client, pytest.raises(ServingError, match=r"schema\.json: its encrypted bytes were altered"):
        client.predict(MODEL, [TINY_ROW])


def test_two_servers_on_one_folder_are_one_too_many(live):
    second = Server(live.settings.home.root.parent)
    with pytest.raises(AssertionError, match="is served already by process"):
        second.start()


def test_it_ends_with_its_parent_where_asked_to(tmp_path):
    server = Server(tmp_path)
    command = [*server_command(server.settings, port=0), "--die-with-parent"]
    parent = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command])
    until = time.monotonic() + 30
    while find_server(server.settings.home) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert find_server(server.settings.home) is not None
    parent.kill()
    parent.wait()
    while find_server(server.settings.home) is not None and time.monotonic() < until:
        time.sleep(0.05)
    assert find_server(server.settings.home) is None


def test_without_admin_scope_nothing_can_be_changed(live):
    with live.client("predict") as client, pytest.raises(AccessError, match="admin"):
        client.request("POST", f"/admin/models/{MODEL}/traffic", {"live": None})


def test_the_audit_log_hears_of_refused_releases_and_of_callers_turned_away(tmp_path):
    server, audit = Server(tmp_path), MemoryAuditLog()
    server.start()
    digest = server.deploy()
    stolen = server.releases.make(2)
    (server.releases.path(stolen) / "model.sig").unlink()
    with pytest.raises(ServingError, match="it is not signed"):
        server.target.load(MODEL, stolen)
    with pytest.raises(ServingError):
        server.target.load(MODEL, server.releases.make(3, altered_answers=0.1))
    for token in ("nonsense", None, server.token("predict")):
        for _ in range(20):
            with connect(server.settings, token=token) as client, pytest.raises(AccessError):
                client.request("POST", f"/admin/models/{MODEL}/rotate", {})
    server.kill(signal.SIGTERM)
    take_over(server.settings.home.serving, audit)
    told = [(entry["action"], entry["detail"]) for entry in audit.entries(subject=f"model/{MODEL}")]
    assert [action for action, _ in told] == ["release_opened", "release_refused", "release_refused"]
    assert told[0][1]["digest"] == digest
    assert (told[1][1]["digest"], told[1][1]["reason"]) == (stolen, "unsigned")
    assert told[2][1]["reason"] == "does not pass its checks"
    denied = [entry["detail"]["counts"] for entry in audit.entries(subject="server")]
    assert len(denied) <= 3
    total = {reason: sum(counts.get(reason, 0) for counts in denied) for reason in ("invalid token", "no token", "wrong scope")}
    assert total == {"invalid token": 20, "no token": 20, "wrong scope": 20}
