"""Malformed requests, the same each time: no 5xx, no traceback, no secret, and the memory stays. `falaj bench governance` sends many more."""

from __future__ import annotations

import gc
import tracemalloc

from gateway_site import Behind

from platform_assets.main_job.bench.malformed import ask_all, gateway_requests, malform


def test_malformed_requests_are_answered_with_4xx_and_tell_nothing(behind: Behind) -> None:
    behind.forgive()
    tokens = [behind.token("admin", subject=f"person{number}") for number in range(4)]
    secrets = [
        (behind.keys / "tokens.key.pem").read_bytes().splitlines()[1],
        behind.gateway.guard.sealer.key,
        *(token.encode() for token in tokens),
    ]
    address = ("127.0.0.1", int(behind.url.rsplit(":", 1)[1]))
    good = gateway_requests(tokens)
    ask_all(address, malform(good, seed=1, count=100), secrets=secrets)
    tracemalloc.start()
    before = _allocated()
    answers = ask_all(address, malform(good, seed=2, count=500), secrets=secrets)
    grown = _allocated() - before
    tracemalloc.stop()
    assert answers.failed == []
    assert answers.told == []
    assert set(answers.statuses) <= {0, 100, 101, 200, 206, 303, 304, 400, 401, 403, 404, 405, 411, 413, 416, 422, 429, 431}
    assert answers.statuses[200] > 0
    assert answers.statuses[400] > answers.statuses[200]
    assert grown < 3 << 20  # bytes: Dagster's caches and the gateway's, full after the first hundred, and nothing a request
    behind.forgive()  # so many bad tokens locked the address
    with behind.client("viewer") as client:
        assert client.get("/server_info").status_code == 200


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
