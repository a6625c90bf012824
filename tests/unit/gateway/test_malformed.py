"""10,000 malformed requests, the same each time: no 5xx, no traceback, no secret, and the memory stays. `falaj bench governance` sends more."""

from __future__ import annotations

import psutil
from gateway_site import Behind

from platform_assets.main_job.bench.malformed import ask_all, ask_in_rows, gateway_requests, malform, spoil


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
    ask_in_rows(address, spoil(good, seed=1, count=300), secrets=secrets)
    before = psutil.Process().memory_info().rss
    broken = ask_all(address, malform(good, seed=2, count=500), secrets=secrets)
    framed = ask_in_rows(address, spoil(good, seed=3, count=9_500), secrets=secrets)
    grown = psutil.Process().memory_info().rss - before
    for answers in (broken, framed):
        assert answers.failed == []
        assert answers.told == []
        assert set(answers.statuses) <= {0, 100, 101, 200, 206, 303, 304, 400, 401, 403, 404, 405, 411, 413, 416, 422, 429, 431}
        assert answers.statuses[200] > 0
        assert answers.statuses[400] > answers.statuses[200]
    assert framed.statuses.total() == 9_500
    assert framed.statuses[0] < 10
    assert grown < 24 << 20  # bytes: Dagster's caches and the gateway's; with the requests kept it would be a hundred
    behind.forgive()  # so many bad tokens locked the address
    with behind.client("viewer") as client:
        assert client.get("/server_info").status_code == 200
