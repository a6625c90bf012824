"""How a notice comes to people outside: a signed webhook, an e-mail. When and how often is the outbox's."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Literal, Protocol

from platform_assets.errors import StateError

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from resources.outbox import Notice
    from resources.settings import Settings

_TIMEOUT_SECONDS = 5.0
Security = Literal["starttls", "tls", "none"]


class Courier(Protocol):
    """Brings notices to one receiver."""

    name: str

    def deliver(self, notice: Notice) -> str | None:
        """Try once; None where the receiver has it, else what went wrong, in words that hold no secret."""


@dataclass(frozen=True)
class QuietHours:
    """Hours of the day, UTC, in which only errors are told; they may reach over midnight."""

    begin: dt.time
    end: dt.time

    def hold(self, at: dt.datetime) -> bool:
        """Whether this is a quiet time."""
        now = at.time()
        return self.begin <= now < self.end if self.begin <= self.end else now >= self.begin or now < self.end


class Webhook:
    """Posts a notice as JSON to one URL.

    `Idempotency-Key` is the notice's id, the same at each attempt. With a secret, `Falaj-Signature` is `sha256=` and the hex
    HMAC-SHA-256 of `Falaj-Timestamp` (epoch seconds), a dot and the body.
    """

    name = "webhook"

    def __init__(self, url: str, *, secret_file: Path | None = None, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a webhook needs an http or https URL, found {url.partition(':')[0]!r}:...; FALAJ_WEBHOOK_URL sets it")
        self._url, self._secret_file, self._timeout_seconds = url, secret_file, timeout_seconds

    def deliver(self, notice: Notice) -> str | None:
        """Post it once."""
        body = json.dumps({
            "title": notice.title, "text": notice.text, "severity": notice.severity, "key": notice.key, "id": notice.id,
        }).encode()  # fmt: skip
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": notice.id, **self._sign(body)}
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310  (scheme checked above)
            with urllib.request.urlopen(request, timeout=self._timeout_seconds):  # noqa: S310  (scheme checked above)
                return None
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        except (OSError, ValueError) as error:
            return type(error).__name__ if isinstance(error, ValueError) else str(getattr(error, "reason", error))

    def _sign(self, body: bytes) -> dict[str, str]:
        if self._secret_file is None:
            return {}
        at = str(int(time.time()))
        digest = hmac.new(_read_secret(self._secret_file), at.encode() + b"." + body, hashlib.sha256).hexdigest()
        return {"Falaj-Timestamp": at, "Falaj-Signature": f"sha256={digest}"}


@dataclass(frozen=True)
class Mailbox:
    """Where mail is handed in, by whom, and for whom. The password stands in a file alone."""

    host: str
    port: int
    security: Security
    sender: str
    receivers: tuple[str, ...]
    user: str | None = None
    password_file: Path | None = None


class Mail:
    """Sends a notice as an e-mail; its Message-ID is made of the notice's id, so that a mail sent twice is seen as one."""

    name = "e-mail"

    def __init__(self, mailbox: Mailbox, *, timeout_seconds: float = _TIMEOUT_SECONDS, context: ssl.SSLContext | None = None) -> None:
        self._box, self._timeout_seconds, self._context = mailbox, timeout_seconds, context

    def deliver(self, notice: Notice) -> str | None:
        """Hand it in once."""
        box = self._box
        message = EmailMessage()
        message["Subject"] = f"[{notice.severity}] {notice.title}".replace("\n", " ").replace("\r", " ")
        message["From"], message["To"] = box.sender, ", ".join(box.receivers)
        message["Message-ID"] = f"<{notice.id}@{box.sender.rpartition('@')[2] or 'falaj'}>"
        message.set_content(notice.text)
        try:
            with self._connect() as server:
                if box.user is not None and box.password_file is not None:
                    server.login(box.user, _read_secret(box.password_file).decode())
                server.send_message(message)
        except smtplib.SMTPAuthenticationError:
            return "the mail server refused the user or the password"  # its own words may repeat what was sent
        except (OSError, smtplib.SMTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
        return None

    def _connect(self) -> smtplib.SMTP:
        box = self._box
        if box.security == "none":
            return smtplib.SMTP(box.host, box.port, timeout=self._timeout_seconds)
        context = self._context or ssl.create_default_context()
        if box.security == "tls":
            return smtplib.SMTP_SSL(box.host, box.port, timeout=self._timeout_seconds, context=context)
        server = smtplib.SMTP(box.host, box.port, timeout=self._timeout_seconds)
        try:
            server.starttls(context=context)  # a server that does not offer it raises: nothing goes out in the open
        except BaseException:
            server.close()
            raise
        return server


def build_couriers(settings: Settings) -> list[Courier]:
    """Return a courier for each receiver that is set."""
    found: list[Courier] = []
    if settings.webhook_url:
        found.append(Webhook(settings.webhook_url, secret_file=settings.notices.webhook_secret_file))
    if settings.notices.mailbox is not None:
        found.append(Mail(settings.notices.mailbox))
    return found


def _read_secret(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise OSError(f"the secret in {path} cannot be read") from error
    if not secret:
        raise OSError(f"the secret file {path} is empty")
    return secret


def read_mailbox(
    host: str | None, *, security: str, sender: str | None, receivers: str | None, user: str | None, password_file: Path | None
) -> Mailbox | None:
    """Read what the environment says of mail; None where no host is named. Half of it is a StateError that names the other half."""
    if host is None:
        return None
    name, _, port = host.partition(":")
    known: dict[str, tuple[Security, int]] = {"starttls": ("starttls", 587), "tls": ("tls", 465), "none": ("none", 25)}
    if security not in known:
        raise StateError(f"FALAJ_SMTP_SECURITY is {security!r}; right would be one of {', '.join(known)}")
    if port and not port.isdecimal():
        raise StateError(f"FALAJ_SMTP_HOST is {host!r}; right would be a host, or host:port")
    if not sender or not receivers:
        raise StateError("FALAJ_SMTP_HOST is set; FALAJ_MAIL_FROM and FALAJ_MAIL_TO must be, too")
    word, usual = known[security]
    people = tuple(one.strip() for one in receivers.split(",") if one.strip())
    return Mailbox(name, int(port or usual), word, sender, people, user, password_file)


def read_quiet_hours(text: str | None) -> QuietHours | None:
    """Read `22:00-06:00`; None where nothing is set."""
    from datetime import time as time_of_day

    if text is None:
        return None
    begin, _, end = text.partition("-")
    try:
        return QuietHours(time_of_day.fromisoformat(begin.strip()), time_of_day.fromisoformat(end.strip()))
    except ValueError:
        raise StateError(f"FALAJ_QUIET_HOURS is {text!r}; right would be hours in UTC, for example 22:00-06:00") from None
