"""Services that show certificates, at a real server on loopback: who talks, who is refused with which reason, and what changes while it serves."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from serving_process import MODEL, Server
from throw_away_ca import Authority as Stranger

from platform_assets.errors import ServingError
from platform_assets.identity.services import INFERENCE, MONITORING, PLATFORM
from platform_assets.stages.serving.__main__ import main
from platform_assets.stages.serving.tls import TlsFiles, tls_context
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.authority import issue, read_authorities
from resources.certificates import AUTHORITY_FILE, client_context, rotate
from resources.home import write_atomically
from resources.incidents import take_over
from resources.testing.serving import TINY_ROW

PREDICT = f"/v1/models/{MODEL}:predict"
ROWS = json.dumps({"rows": [TINY_ROW]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Known(Server):
    """A server that knows services by certificate."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.settings = replace(self.settings, mtls="local")
        self.target = type(self.target)(self.settings, self.releases)
        self.grpc_port = free_port()

    @property
    def folder(self) -> Path:
        return self.settings.home.keys / "services"

    def issue(self, name: str, *, now: datetime | None = None) -> Path:
        """A certificate of this home's authority; beside, not in the place of the service's own."""
        (authority,) = read_authorities(self.settings.home.keys / AUTHORITY_FILE)
        file = self.settings.home.root / "issued.pem"
        write_atomically(file, issue(authority, name, now=now or datetime.now(UTC)))
        return file

    def renew(self) -> None:
        """Give the server another certificate, as the one that keeps them does."""
        self.issue(INFERENCE).replace(self.folder / f"{INFERENCE}.pem")

    def context(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if certificate is not None:
            made.load_cert_chain(certificate, key)
        return made

    def ask(self, path: str, *, context: ssl.SSLContext, scopes: tuple[str, ...] = (), body: str | None = None) -> tuple[int, str]:
        """Status and body; 0 and why where the handshake ends it."""
        headers = {"authorization": f"Bearer {self.token(*scopes)}"} if scopes else {}
        port = int(self.url.rpartition(":")[2])
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)) as connection:
            try:
                connection.connect()
                connection.sock.settimeout(10)
                connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
                reply = connection.getresponse()
                return reply.status, reply.read().decode()
            except ssl.SSLError as error:
                return 0, str(error.reason)
            except OSError:  # closed with our request unread: the alert is lost
                return 0, "reset"

    def serial(self, port: int) -> int:
        """Number of the certificate that callers of this port meet."""
        context = self.context()
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as safe,
        ):
            return x509.load_der_x509_certificate(safe.getpeercert(binary_form=True)).serial_number

    def wait_for_another(self, port: int, before: int) -> None:
        until = time.monotonic() + 20
        while self.serial(port) == before:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    made = Known(tmp_path_factory.mktemp("known"))
    made.start("--grpc-port", str(made.grpc_port))
    made.deploy()
    yield made
    assert made.kill(signal.SIGTERM) == ""


def test_the_platform_deploys_and_predicts_by_its_certificate(known):
    assert known.target.status(MODEL)["live"]
    with known.client() as client:
        assert client.predict(MODEL, [TINY_ROW])["predictions"]


def test_outside_callers_come_with_tokens_as_before(known):
    outside = known.context()
    assert known.ask(PREDICT, context=outside, scopes=(f"predict:{MODEL}",), body=ROWS)[0] == 200
    assert known.ask(PREDICT, context=outside, body=ROWS)[0] == 401  # being on this machine says nothing here
    assert known.ask("/v2/health/ready", context=outside)[0] == 200  # a kubelet has neither


def test_monitoring_sees_figures_and_nothing_else(known):
    monitoring = known.context(known.folder / f"{MONITORING}.pem")
    assert "falaj_http_replies_total" in known.ask("/metrics", context=monitoring)[1]
    status, said = known.ask(PREDICT, context=monitoring, body=ROWS)
    assert (status, "'monitoring', and by it alone may metrics" in said) == (403, True)


def test_each_wrong_certificate_is_refused_with_its_reason_and_audited(known, tmp_path):
    stranger = Stranger(tmp_path / "stranger")
    admin, before = ("admin",), len(list((known.settings.home.serving / "incidents").glob("*.json")))
    refused = {
        "of another authority": known.context(*stranger.issue("platform")),
        "ended": known.context(known.issue(PLATFORM, now=datetime.now(UTC) - timedelta(days=2))),
        "a server's": known.context(known.issue(INFERENCE)),
    }
    found = {what: known.ask(f"/admin/models/{MODEL}", context=context, scopes=admin) for what, context in refused.items()}
    assert {status for status, _ in found.values()} == {0}
    reasons = {what: why for what, (_, why) in found.items() if why != "reset"}
    assert set(reasons.items()) <= {
        ("of another authority", "TLSV1_ALERT_UNKNOWN_CA"), ("ended", "SSL/TLS_ALERT_CERTIFICATE_EXPIRED"), ("ended", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("a server's", "SSL/TLS_ALERT_UNSUPPORTED_CERTIFICATE"), ("a server's", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    }  # fmt: skip
    for context, why in (
        (known.context(), "none was shown"), (known.context(known.folder / f"{MONITORING}.pem"), "'monitoring'"), (known.context(known.issue("guest")), "'guest'"),
    ):  # fmt: skip
        status, said = known.ask(f"/admin/models/{MODEL}", context=context, scopes=admin)
        assert (status, why in said) == (403, True)
    status, said = known.ask(f"/admin/models/{MODEL}", context=known.context(known.folder / f"{PLATFORM}.pem"))
    assert (status, "may metrics and predict" in said) == (403, True)  # the certificate without the token
    assert known.kill(signal.SIGTERM) == ""
    assert len(list((known.settings.home.serving / "incidents").glob("*.json"))) > before
    audit = SqliteAuditLog(tmp_path / "audit.sqlite", signer=HeadSigner(tmp_path / "keys"))
    take_over(known.settings.home.serving, audit)
    counted = {}
    for entry in audit.entries(subject="server"):
        for reason, count in entry["detail"]["counts"].items():
            counted[reason] = counted.get(reason, 0) + count
    assert counted["certificate: unable to get local issuer certificate"] == 1
    assert counted["certificate: certificate has expired"] == 1
    assert counted["certificate: unsuitable certificate purpose"] == 1
    assert (counted["no certificate"], counted["wrong service"] >= 3) == (1, True)
    known.start("--grpc-port", str(known.grpc_port))


def test_renewed_certificates_are_taken_up_without_a_lost_request(known):
    lost, asked, stop = [], [0, 0], threading.Event()

    def ask(kept: bool) -> None:
        client = known.client()
        while not stop.is_set():
            try:
                client.predict(MODEL, [TINY_ROW])
                asked[kept] += 1
            except ServingError as error:
                lost.append(str(error))
            if not kept:
                client.close()

    threads = [threading.Thread(target=ask, args=(kept,)) for kept in (True, False)]
    for thread in threads:
        thread.start()
    port = int(known.url.rpartition(":")[2])
    try:
        for _ in range(2):
            before, speaking = known.serial(port), known.serial(known.grpc_port)
            known.renew()
            known.wait_for_another(port, before)
            known.wait_for_another(known.grpc_port, speaking)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert lost == []
    assert min(asked) > 10


def test_what_is_written_in_half_leaves_the_certificate_of_before_and_one_that_ends_is_told(known):
    file, port = known.folder / f"{INFERENCE}.pem", int(known.url.rpartition(":")[2])
    whole, before = file.read_bytes(), known.serial(port)
    file.write_bytes(whole[: len(whole) // 2])
    time.sleep(1.5)  # the server looks once a second
    assert known.serial(port) == before
    os.set_blocking(known.process.stderr.fileno(), False)
    assert b"they are no certificate and its key in PEM form" in known.process.stderr.read()
    known.issue(INFERENCE, now=datetime.now(UTC) - timedelta(hours=24) + timedelta(seconds=3)).replace(
        file
    )  # and one that ends while it serves
    said, until = b"", time.monotonic() + 20
    while b"and callers refuse it; renew it" not in said:
        assert time.monotonic() < until, said
        time.sleep(0.1)
        said += known.process.stderr.read() or b""
    file.write_bytes(whole)
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(ssl.SSLCertVerificationError):
            assert known.serial(port) == before
            break
        assert time.monotonic() < until
        time.sleep(0.1)


def test_what_was_asked_for_wrongly_is_one_sentence(known, tmp_path, capsys):
    pair = known.folder / f"{INFERENCE}.pem"
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(ServingError, match=r"--service-ca .*ca: it holds no certificates of authorities in PEM form"):
        tls_context(TlsFiles(pair, pair, tmp_path / "ca"))
    ended = known.issue(INFERENCE, now=datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(ServingError, match=r"--tls-cert .*issued\.pem: it ended at .* UTC; whoever writes it has to renew it"):
        tls_context(TlsFiles(ended, ended))
    with pytest.raises(SystemExit):
        main(["--serving", str(tmp_path), "--service-ca", str(tmp_path / "ca")])
    assert "--service-ca needs --tls-cert and --tls-key: certificates are shown over TLS" in capsys.readouterr().err


def test_a_rotation_refuses_what_was_signed_before_and_who_is_connected_comes_back_with_the_new(known):
    old = known.context(known.folder / f"{PLATFORM}.pem")
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE  # the server's is of the new authority; that ours is refused is what counts
    port = int(known.url.rpartition(":")[2])
    with known.client() as client, contextlib.closing(http.client.HTTPSConnection("127.0.0.1", port, context=old, timeout=10)) as kept:
        client.predict(MODEL, [TINY_ROW])
        kept.request("GET", "/status")
        assert kept.getresponse().read()
        ended, statuses = threading.Event(), []

        def come_and_ask() -> None:
            while not ended.is_set():
                statuses.append(known.ask("/status", context=client_context(known.settings))[0])

        with ThreadPoolExecutor(2) as callers:
            coming = [callers.submit(come_and_ask) for _ in range(2)]
            rotate(known.settings.home.keys)
            ended.wait(1.5)  # until the server has looked once more
            ended.set()
            for one in coming:
                one.result()
        assert len(statuses) > 20
        assert set(statuses) == {200}, "each a connection of its own, and none was turned away"
        assert client.predict(MODEL, [TINY_ROW])["predictions"]
        with contextlib.suppress(OSError, http.client.HTTPException):  # it was closed, or says 403
            kept.request("GET", "/status")
            assert kept.getresponse().status == 403
    assert known.ask("/status", context=old)[0] == 0
    assert known.target.status(MODEL)["live"]


def test_a_platform_whose_certificate_the_server_refuses_says_so(known, tmp_path):
    other = Known(tmp_path)
    other.settings = replace(other.settings, serve_url=known.url)
    with pytest.raises(ServingError, match=r"do not trust each other: its certificate does not hold .*FALAJ_MTLS"):
        other.client().predict(MODEL, [TINY_ROW])
