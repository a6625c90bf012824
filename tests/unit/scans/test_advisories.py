"""Packages held against advisories: of a service on loopback that answers well, badly, late or not at all, and of a folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from platform_assets.errors import ScanError
from platform_assets.scans.advisories import audit
from platform_assets.scans.advisory_folder import AdvisoryFolder
from platform_assets.scans.advisory_service import KNOWN_BAD, AdvisoryService
from platform_assets.scans.inventory import Package

GOOD, BAD = Package("PyPI", "arrow-things", "2.0"), Package("PyPI", "holey", "1.4")


def record(name: str, *, severity: str | None = "HIGH", **extra: Any) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "1.0"}, {"fixed": "1.5"}]}]
    affected = [{"package": {"ecosystem": "PyPI", "name": "Holey"}, "ranges": ranges}]
    return {
        "id": name,
        "summary": "Reads what it is told to",
        "affected": affected,
        **({"database_specific": {"severity": severity}} if severity else {}),
        **extra,
    }


@dataclass
class Stub:
    """A service of OSV's protocol; `wrong` answers instead of it."""

    known: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {KNOWN_BAD.name: [record("PYSEC-0000-1")]})
    wrong: Callable[[BaseHTTPRequestHandler, str], bool] | None = None
    page: int = 1000
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: Any) -> Any:
        self.asked.append(path)
        if path.startswith("/v1/vulns/"):
            return next(one for records in self.known.values() for one in records if one["id"] == path.rpartition("/")[2])
        results = []
        for query in body["queries"]:
            start = int(query.get("page_token", 0))
            records = self.known.get(query["package"]["name"], [])
            shown = [{"id": one["id"], "modified": "2026-01-01T00:00:00Z"} for one in records[start : start + self.page]]
            more = {"next_page_token": str(start + self.page)} if start + self.page < len(records) else {}
            results.append({"vulns": shown, **more} if shown else {})
        return {"results": results}


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if made.wrong is None or not made.wrong(self, "POST"):
                send(self, 200, json.dumps(made.answer(self.path, json.loads(body))).encode())

        def do_GET(self) -> None:
            if made.wrong is None or not made.wrong(self, "GET"):
                send(self, 200, json.dumps(made.answer(self.path, None)).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes) -> bool:
    handler.send_response(status)
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    return True


def ask(stub: Stub, *packages: Package, timeout: float = 30) -> list[Any]:
    return audit(packages, AdvisoryService(stub.url, timeout_seconds=timeout))


def test_a_package_that_an_advisory_speaks_of_is_found_and_another_is_not(stub):
    stub.known["holey"] = [record("GHSA-aaaa")]
    (found,) = ask(stub, GOOD, BAD)
    assert (found.name, found.where, found.severity, found.stops) == ("GHSA-aaaa", "holey", "high", True)
    assert "1.4 (PyPI): Reads what it is told to; mended in 1.5" in found.text
    assert ask(stub, GOOD) == []


def test_names_of_one_hole_are_one_finding_with_the_worst_that_is_known(stub):
    stub.known["holey"] = [
        record("PYSEC-2026-1", severity=None, aliases=["CVE-2026-1"]), record("PYSEC-2026-9", severity="LOW"),
        record("GHSA-aaaa", severity="CRITICAL", aliases=["CVE-2026-1"]), record("GHSA-gone", withdrawn="2026-01-01T00:00:00Z"),
    ]  # fmt: skip
    first, second = ask(stub, BAD)
    assert (first.name, first.severity, first.aliases) == ("GHSA-aaaa", "critical", ("CVE-2026-1", "PYSEC-2026-1"))
    assert (second.name, second.stops) == ("PYSEC-2026-9", False)


def test_what_nobody_has_judged_stops_as_what_is_high_does(stub):
    stub.known["holey"] = [record("PYSEC-2026-1", severity=None)]
    (found,) = ask(stub, BAD)
    assert (found.severity, found.stops) == ("unknown", True)


def test_further_pages_and_more_than_a_batch_are_asked_for(stub):
    stub.page = 2
    stub.known["holey"] = [record(f"GHSA-{number}") for number in range(5)]
    many = [Package("PyPI", f"package-{number}", "1") for number in range(1001)]
    assert [one.name for one in ask(stub, *many, BAD)] == [f"GHSA-{number}" for number in range(5)]
    assert stub.asked.count("/v1/querybatch") == 4


def test_a_service_without_advisories_has_audited_nothing(stub):
    stub.known = {}
    with pytest.raises(ScanError, match=r"knows no advisory about jinja2 2\.4\.1.*nothing was audited"):
        ask(stub, GOOD)


def test_a_service_that_cannot_be_reached_has_audited_nothing():
    with pytest.raises(ScanError, match=r"No advisories from http://127\.0\.0\.1:9 \(ConnectError.*nothing was audited"):
        audit([GOOD], AdvisoryService("http://127.0.0.1:9", timeout_seconds=5))


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (500, b"{}", "is answered with 500"), (404, b"{}", "is answered with 404"), (302, b"", "is answered with 302"),
        (200, b"", "is not answered with JSON"), (200, b"<html>", "is not answered with JSON"), (200, b"[]", "JSON that is no object"),
        (200, b"{}", "(no answers came|it gives None)"), (200, b'{"results": [{}]}', "(2 packages were asked about|it gives None)"),
        (200, b'{"results": [{"vulns": 7}, {}]}', "(the answer about|it gives None)"),
        (200, b'{"results": [{"vulns": [{"id": "../../x"}]}, {}]}', "(the answer about|it gives None)"),
    ],
)  # fmt: skip
def test_a_service_that_answers_badly_has_audited_nothing(stub, method, status, content, message):
    stub.known["holey"] = [record("GHSA-aaaa")]
    stub.wrong = lambda handler, asked: asked == method and send(handler, status, content)
    with pytest.raises(ScanError, match=rf"{message}.*nothing was audited"):
        ask(stub, BAD)


def test_a_service_that_drips_its_answer_is_given_up(stub):
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler, _: str) -> bool:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not done.wait(0.01):
                handler.wfile.write(b" ")
        except OSError:
            pass
        return True

    stub.wrong = drip
    try:
        with pytest.raises(ScanError, match=r"not answered whole within 0\.2 s.*nothing was audited"):
            ask(stub, GOOD, timeout=0.2)
    finally:
        done.set()


def test_a_service_that_never_answers_is_given_up(stub):
    done = threading.Event()
    stub.wrong = lambda *_: done.wait(30)
    try:
        with pytest.raises(ScanError, match=r"ReadTimeout.*nothing was audited"):
            ask(stub, GOOD, timeout=0.2)
    finally:
        done.set()


def lay(folder: Path, *records: Any) -> AdvisoryFolder:
    for number, one in enumerate(records):
        (folder / f"{number}.json").write_text(one if isinstance(one, str) else json.dumps(one))
    return AdvisoryFolder(folder)


def test_a_folder_of_records_finds_the_same(tmp_path):
    folder = lay(tmp_path, record("GHSA-aaaa"))
    (found,) = audit([GOOD, BAD, Package("PyPI", "holey", "1.5")], folder)
    assert (found.name, found.where, found.severity) == ("GHSA-aaaa", "holey", "high")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "has no OSV record about PyPI, so nothing was audited"), (["{"], "0.json is no OSV record"), (["[]"], "it has no id"),
        ([{"id": "X", "affected": [{}]}], "0.json is no OSV record"), ([{"id": "X", "affected": 7}], "0.json is no OSV record"),
        ([record("X", affected=[{"package": {"ecosystem": "Debian:12", "name": "openssl"}}])], "no OSV record about PyPI"),
        ([record("X", affected=[{"package": {"ecosystem": "PyPI", "name": "holey"}, "ranges": [{"type": "ECOSYSTEM"}]}])], "is no OSV record"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_say_has_audited_nothing(tmp_path, records, message):
    with pytest.raises(ScanError, match=message):
        audit([BAD], lay(tmp_path, *records))
