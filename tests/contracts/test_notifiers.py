"""What every notifier and every courier promises: nobody waits for a receiver, nothing is told twice, no secret is said."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import itertools
import json
import logging
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import StateError
from resources.couriers import Mail, Mailbox, QuietHours, Webhook, read_mailbox, read_quiet_hours
from resources.notifiers import LogNotifier, Notifiers, OutboxNotifier
from resources.outbox import Notice, Outbox, deliver
from resources.testing.state import RecordingNotifier

NOTICE = Notice("a1b2", "m/asked/v1", "m: retraining asked", "lead_time moved\nby 0.3", "warning", 1000.0)
SECRET = b"do not tell"


class _Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.requests.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = http.server.HTTPServer(("127.0.0.1", 0), _Receiver)
    server.requests, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class MailServer:
    """A small SMTP server (RFC 5321) on loopback: STARTTLS or TLS from the first byte, AUTH PLAIN and LOGIN, one password."""

    def __init__(self, *, context, security, password):
        self.context, self.security, self.password = context, security, password
        self.mails, self.secured, self.port = [], [], 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self):
        context = self.context if self.security == "tls" else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        secured, who, mail = self.security == "tls", None, {}

        async def say(text):
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("220 here")
        while line := (await reader.readline()).decode().strip():
            verb = line.split(" ")[0].upper()
            if verb == "EHLO":
                starttls = ["250-STARTTLS"] if self.security == "starttls" and not secured else []
                await say("\r\n".join(["250-here", *starttls, "250 AUTH PLAIN"]))
            elif verb == "STARTTLS":
                await say("220 go on")
                await writer.start_tls(self.context)
                secured = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split(" ")[2]).split(b"\0")
                good = password == self.password
                who = user.decode() if good else None
                await say("235 welcome" if good else f"535 {password.decode()} is wrong")
            elif verb in ("MAIL", "RCPT"):
                mail.setdefault(verb, []).append(line)
                await say("250 fine" if who or self.password is None else "530 log in first")
            elif verb == "DATA":
                await say("354 go on")
                body = []
                while (text := await reader.readline()) != b".\r\n":
                    body.append(text.decode())
                self.mails.append((who, mail, "".join(body)))
                self.secured.append(secured)
                await say("250 taken")
            elif verb == "QUIT":
                await say("221 bye")
                break
            else:
                await say("250 fine")
        writer.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Server and client context around one self-signed certificate for localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


@contextmanager
def mail(tls, tmp_path, *, security="starttls", offers=None, password=SECRET, known=SECRET):
    server_context, client_context = tls
    (tmp_path / "password").write_bytes(password + b"\n")
    with MailServer(context=server_context, security=offers or security, password=known) as server:
        box = Mailbox(
            "localhost", server.port, security, "falaj@example.ae", ("a@example.ae", "b@example.ae"), "falaj", tmp_path / "password"
        )
        yield Mail(box, context=client_context), server


# ------------------------------------------------------------------ notifiers


@pytest.fixture(params=["log", "recording", "outbox", "several"])
def notifier(request, tmp_path):
    outbox = OutboxNotifier(Outbox(tmp_path / "notices.sqlite"), ["webhook"])
    return {
        "log": LogNotifier(), "recording": RecordingNotifier(), "outbox": outbox, "several": Notifiers([LogNotifier(), outbox])
    }[request.param]  # fmt: skip


@pytest.mark.parametrize("severity", ["info", "warning", "error"])
def test_a_notifier_never_stops_its_caller(notifier, severity):
    notifier.notify("drift found", "column adr", severity=severity)
    notifier.notify("drift found", "column adr", severity=severity, key="m/drift/1")
    notifier.notify("", "\0\n'; --", severity=severity, key="m/drift/1")


def test_an_outbox_that_cannot_be_written_is_logged_and_the_next_notifier_is_told(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    recording = RecordingNotifier()
    broken = OutboxNotifier(Outbox(tmp_path / "file" / "notices.sqlite"), ["webhook"])
    with caplog.at_level(logging.WARNING):
        Notifiers([broken, recording]).notify("t", "x", severity="error", key="k")
    assert "the outbox did not take 't'" in caplog.text
    assert [(message.title, message.key) for message in recording.messages] == [("t", "k")]


# --------------------------------------------------------------------- outbox


def put(outbox, key="m/drift/1", *, now, couriers=("webhook",), severity="warning"):
    return outbox.put("title", "text", severity=severity, key=key, couriers=couriers, now=now)


def test_a_key_is_told_once_over_restarts_and_again_when_a_reminder_is_due(tmp_path):
    path = tmp_path / "notices.sqlite"
    day = timedelta(days=1).total_seconds()
    assert put(Outbox(path), now=0)
    assert not put(Outbox(path), now=day - 1)
    assert put(Outbox(path), now=day + 1)
    assert put(Outbox(path), "m/drift/2", now=0)
    assert len(Outbox(path).due("webhook", now=day + 1)) == 3


def test_what_is_acknowledged_is_never_told_again_and_other_models_are(tmp_path):
    outbox = Outbox(tmp_path / "notices.sqlite")
    for key in ("m/drift/1", "m/asked/1", "m2/drift/1"):
        put(outbox, key, now=0)
    assert outbox.acknowledge("m/", who="me", now=1) == 2
    assert outbox.acknowledge("m/", who="me", now=2) == 0
    assert not put(outbox, "m/drift/1", now=1e9)
    assert put(outbox, "m2/drift/1", now=1e9)


def test_what_has_no_key_is_told_each_time(tmp_path):
    outbox = Outbox(tmp_path / "notices.sqlite")
    assert [put(outbox, "", now=0) for _ in range(3)] == [True, True, True]


class Fails:
    name = "webhook"

    def __init__(self):
        self.tried = []

    def deliver(self, notice):
        self.tried.append(notice.id)
        return "it is away"


def test_a_dead_receiver_is_tried_less_and_less_often_under_one_id_and_costs_one_try_a_round(tmp_path):
    outbox, dead = Outbox(tmp_path / "notices.sqlite"), Fails()
    put(outbox, "a", now=0)
    put(outbox, "b", now=0)
    (said,) = deliver(outbox, [dead], quiet=None, now=0)
    assert said == "webhook did not take 'title' (it is away); it is tried again"
    first = dead.tried[0]
    assert len(dead.tried) == 1
    tries = [now for now in range(1, 200) if deliver(outbox, [dead], quiet=None, now=now) and dead.tried[-1] == first]
    assert tries == sorted(tries)
    gaps = [after - before for before, after in zip([0, *tries], tries, strict=False)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(gaps))
    assert 3 <= len(tries) <= 6


def test_after_enough_tries_a_notice_is_given_up(tmp_path):
    outbox, dead = Outbox(tmp_path / "notices.sqlite"), Fails()
    put(outbox, now=0)
    said = [sentence for hour in range(60) for sentence in deliver(outbox, [dead], quiet=None, now=hour * 4000.0)]
    assert said[-1].endswith("it is given up")
    assert len(said) == len(dead.tried) == 40
    assert outbox.due("webhook", now=1e12) == []


def test_one_receiver_away_keeps_nothing_from_another(tmp_path, receiver):
    class Other(Fails):
        name = "e-mail"

    outbox = Outbox(tmp_path / "notices.sqlite")
    put(outbox, now=0, couriers=("e-mail", "webhook"))
    webhook = Webhook(f"http://127.0.0.1:{receiver.server_port}/")
    assert len(deliver(outbox, [Other(), webhook], quiet=None, now=0)) == 1
    assert deliver(outbox, [webhook], quiet=None, now=1e9) == []
    assert len(receiver.requests) == 1


def test_in_quiet_hours_errors_alone_go_out_and_the_rest_when_they_end(tmp_path, receiver):
    outbox, webhook = Outbox(tmp_path / "notices.sqlite"), Webhook(f"http://127.0.0.1:{receiver.server_port}/")
    night = datetime(2026, 1, 1, 23, tzinfo=UTC).timestamp()
    quiet = QuietHours(time(22), time(6))
    put(outbox, "a", now=night, severity="warning")
    put(outbox, "b", now=night, severity="error")
    deliver(outbox, [webhook], quiet=quiet, now=night)
    assert [json.loads(body)["severity"] for _, body in receiver.requests] == ["error"]
    deliver(outbox, [webhook], quiet=quiet, now=night + 8 * 3600)
    assert [json.loads(body)["severity"] for _, body in receiver.requests] == ["error", "warning"]


@given(st.times(), st.times(), st.times())
def test_quiet_hours_and_the_rest_of_the_day_part_it_in_two(begin, end, now):
    at = datetime(2026, 1, 1, now.hour, now.minute, now.second, now.microsecond, tzinfo=UTC)
    hours, rest = QuietHours(begin, end).hold(at), QuietHours(end, begin).hold(at)
    assert hours != rest if begin != end else not hours


# ------------------------------------------------------------------- couriers


def test_a_webhook_gets_the_notice_its_id_and_a_signature_that_its_secret_makes(receiver, tmp_path):
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    assert Webhook(f"http://127.0.0.1:{receiver.server_port}/", secret_file=tmp_path / "secret").deliver(NOTICE) is None
    ((headers, body),) = receiver.requests
    assert json.loads(body) == {
        "title": NOTICE.title, "text": NOTICE.text, "severity": "warning", "key": NOTICE.key, "id": NOTICE.id
    }  # fmt: skip
    assert headers["Idempotency-Key"] == NOTICE.id
    signed = hmac.new(SECRET, headers["Falaj-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["Falaj-Signature"] == f"sha256={signed}"


def test_a_retry_brings_the_same_id(receiver, tmp_path):
    receiver.answers = [503]
    outbox, webhook = Outbox(tmp_path / "notices.sqlite"), Webhook(f"http://127.0.0.1:{receiver.server_port}/")
    put(outbox, now=0)
    (said,) = deliver(outbox, [webhook], quiet=None, now=0)
    assert "(status 503); it is tried again" in said
    assert deliver(outbox, [webhook], quiet=None, now=60) == []
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.requests}) == 1
    assert len(receiver.requests) == 2


def test_a_webhook_that_never_answers_is_given_up_within_its_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_seconds=0.2).deliver(NOTICE)
    assert "timed out" in said


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_mail_goes_out_by_each_kind_of_security(tls, tmp_path, security):
    with mail(tls, tmp_path, security=security) as (courier, server):
        assert courier.deliver(NOTICE) is None
    ((who, envelope, text),) = server.mails
    assert who == "falaj"
    assert server.secured == [security != "none"]
    assert [line.split("<")[1].split(">")[0] for line in envelope["RCPT"]] == ["a@example.ae", "b@example.ae"]
    assert "Subject: [warning] m: retraining asked" in text
    assert f"Message-ID: <{NOTICE.id}@example.ae>" in text
    assert "lead_time moved" in text


def test_nothing_is_said_in_the_open_to_a_server_that_offers_no_starttls(tls, tmp_path):
    with mail(tls, tmp_path, security="starttls", offers="none") as (courier, server):
        assert courier.deliver(NOTICE) is not None
    assert server.mails == []


def test_a_certificate_of_nobody_known_is_refused(tls, tmp_path):
    with mail((tls[0], None), tmp_path, security="tls") as (courier, server):
        assert "CERTIFICATE_VERIFY_FAILED" in courier.deliver(NOTICE)
    assert server.mails == []


def test_no_secret_is_ever_said(tls, tmp_path, receiver):
    with mail(tls, tmp_path, known=b"another") as (courier, server):
        problems = [courier.deliver(NOTICE), repr(courier._box), repr(vars(courier))]
    assert server.mails == []
    receiver.answers = [401]
    (tmp_path / "secret").write_bytes(SECRET)
    webhook = Webhook(f"http://127.0.0.1:{receiver.server_port}/hook?token=do+not+tell", secret_file=tmp_path / "secret")
    problems += [webhook.deliver(NOTICE), Webhook("http://127.0.0.1:9/?t=do+not+tell").deliver(NOTICE)]
    assert problems[0] == "the mail server refused the user or the password"
    assert all("tell" not in problem for problem in problems)


def test_a_secret_file_that_is_not_there_or_empty_sends_nothing(tmp_path, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/"
    assert "cannot be read" in Webhook(url, secret_file=tmp_path / "none").deliver(NOTICE)
    (tmp_path / "empty").touch()
    assert "is empty" in Webhook(url, secret_file=tmp_path / "empty").deliver(NOTICE)
    assert receiver.requests == []


def test_what_is_set_badly_is_said_in_one_sentence():
    with pytest.raises(ValueError, match="http or https"):
        Webhook("file:///etc/passwd")
    with pytest.raises(StateError, match=r"FALAJ_QUIET_HOURS is 'night'; right would be hours in UTC"):
        read_quiet_hours("night")
    with pytest.raises(StateError, match="FALAJ_MAIL_FROM and FALAJ_MAIL_TO must be, too"):
        read_mailbox("localhost", security="tls", sender=None, receivers=None, user=None, password_file=None)
    with pytest.raises(StateError, match="FALAJ_SMTP_SECURITY is 'maybe'"):
        read_mailbox("localhost", security="maybe", sender="a", receivers="b", user=None, password_file=None)
    box = read_mailbox("mail.example.ae", security="tls", sender="a", receivers="b, c", user=None, password_file=None)
    assert (box.port, box.receivers) == (465, ("b", "c"))
