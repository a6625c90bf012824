"""10,000 malformed requests to the inference server, the same each time: no 5xx, no traceback, no secret, and the memory stays."""

from __future__ import annotations

import psutil

from platform_assets.main_job.bench.malformed import Good, ask_all, ask_in_rows, malform, spoil

PATH = "/v1/models/tiny:predict"


def test_malformed_requests_are_answered_with_4xx_and_tell_nothing(live):
    token = live.token("predict", "admin")
    secrets = [token.encode(), (live.settings.home.keys / "tokens.key.pem").read_bytes().splitlines()[1]]
    row = '{"rows": [{"amount": 1.5, "colour": "red", "customer": "a"}]}'
    tensors = '{"inputs": [{"name": "amount", "shape": [1], "datatype": "FP64", "data": [1.5]}]}'
    mine = [f"Authorization: Bearer {token}"]
    good = [
        Good("POST", PATH, row), Good("POST", PATH, row, mine), Good("POST", "/v2/models/tiny/infer", tensors), Good("GET", "/v2/models/tiny"),
        Good("GET", "/metrics"), Good("GET", "/"), Good("POST", "/admin/models/tiny/traffic", '{"live": "../../etc"}', mine),
        Good("POST", "/admin/models/tiny/load", '{"digest": "../../keys"}', mine), Good("GET", "/admin/models/tiny", head=mine),
    ]  # fmt: skip
    process = psutil.Process(live.process.pid)
    ask_all(live.address, malform(good, seed=1, count=300), secrets=secrets)
    before = process.memory_info().rss
    broken = ask_all(live.address, malform(good, seed=2, count=1_000), secrets=secrets)
    framed = ask_in_rows(live.address, spoil(good, seed=3, count=9_000), secrets=secrets)
    for answers in (broken, framed):
        assert answers.failed == []
        assert answers.told == []
        assert answers.statuses[400] > 100
    assert framed.statuses.total() == 9_000
    assert framed.statuses[0] < 10
    assert process.memory_info().rss - before < 16 << 20
    assert live.target.status("tiny")["live"]
