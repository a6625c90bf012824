"""TLS of the server: certificate and key from files that may change while it serves, and services that show certificates of their own.

Who shows a certificate is held to it at the handshake (RFC 8446, 4.4.2 and 4.3.2); who shows none is a caller like any other and brings a
token. What a service may is access.py's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from platform_assets.errors import ServingError
from platform_assets.logs import event, say

BACKLOG = 1024
_LOOK_SECONDS = 1.0
_TRIES, _PAUSE_SECONDS = 5, 0.02


@dataclass(frozen=True)
class TlsFiles:
    """Certificate chain and key, PEM, in two files or in one; and the authorities whose certificates services show."""

    certificate: Path
    key: Path
    services: Path | None = None

    def stamp(self) -> list[tuple[int, int, int]]:
        """Return what changes when a file is written or replaced; OSError where one is not there."""
        found = [file.stat() for file in (self.certificate, self.key, self.services) if file is not None]
        return [(one.st_ino, one.st_mtime_ns, one.st_size) for one in found]


def load_pair(context: ssl.SSLContext, *, certificate: Path, key: Path) -> None:
    """Load both; where they are being replaced just now, and one is of before, once more."""
    for attempt in range(_TRIES):
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            if error.reason != "KEY_VALUES_MISMATCH" or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def end_of(certificate: Path) -> float:
    """Return when a certificate ends, on the wall clock; ValueError or OSError where it is none."""
    return x509.load_pem_x509_certificates(certificate.read_bytes())[0].not_valid_after_utc.timestamp()


def tls_context(files: TlsFiles | None, *, on_refused: Callable[[str], None] = lambda _: None) -> ssl.SSLContext | None:
    """Context of the files; ServingError where they are none, or the certificate has ended.

    `on_refused` hears why the certificate of a caller was refused, in OpenSSL's words.
    """
    if files is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        load_pair(context, certificate=files.certificate, key=files.key)
        end = end_of(files.certificate)
    except (OSError, ValueError) as error:
        raise ServingError(
            f"--tls-cert {files.certificate} and --tls-key {files.key}: they are no certificate and its key in PEM form ({error})"
        ) from error
    if end < time.time():
        raise ServingError(f"--tls-cert {files.certificate}: it ended at {_at(end)}; whoever writes it has to renew it")
    if files.services is not None:
        _ask_for_certificates(context, files.services, on_refused)
    return context


def _ask_for_certificates(context: ssl.SSLContext, authorities: Path, on_refused: Callable[[str], None]) -> None:
    try:
        context.load_verify_locations(authorities)
    except OSError as error:
        raise ServingError(f"--service-ca {authorities}: it holds no certificates of authorities in PEM form ({error})") from error
    context.verify_mode = ssl.CERT_OPTIONAL
    # A session that is taken up again shows no certificate, so an ended or distrusted one would go on: there are none.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            """Tell of a caller whose certificate does not hold: event loops drop the reason."""
            try:
                super().do_handshake()
            except ssl.SSLCertVerificationError as error:
                on_refused(error.verify_message)
                raise

    context.sslobject_class = Watched


class Door:
    """Where callers come in. When the files change, new callers meet the new ones; who is inside, or on the threshold, goes on."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], Any], files: TlsFiles | None, *,
        on_refused: Callable[[str], None], on_distrust: Callable[[], None],
    ) -> None:  # fmt: skip
        """`on_distrust` is called when an authority of services is trusted no more."""
        self._listening, self._protocol, self._files = listening, protocol, files
        self._on_refused, self._on_distrust = on_refused, on_distrust
        self._server: asyncio.Server | None = None
        self._stamp: list[tuple[int, int, int]] = []
        self._trusted: set[bytes] = set()
        self._end, self._said = 0.0, ""

    async def open(self) -> None:
        """Let callers in; ServingError where the files are not right, and then those of before stay."""
        stamp = self._files.stamp() if self._files is not None else []
        context = tls_context(self._files, on_refused=self._on_refused)
        before, trusted = self._server, set(context.get_ca_certs(binary_form=True)) if context is not None else set()
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, sock=self._listening.dup(), backlog=BACKLOG, ssl=context
        )
        if before is not None:
            before.close()  # its own copy of the socket: callers that wait are in the queue of both
        self._stamp = stamp
        if self._files is not None:
            self._end = end_of(self._files.certificate)
        if not self._trusted <= trusted:
            self._on_distrust()
        self._trusted = trusted

    async def keep(self) -> None:
        """Look at the files once a second; what is wrong with them is said once, and what was good goes on."""
        while self._files is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if self._files.stamp() == self._stamp:
                    if self._end < time.time():
                        self._say(f"--tls-cert {self._files.certificate}: it ended at {_at(self._end)}, and callers refuse it; renew it")
                    continue
                await self.open()
            except (OSError, ServingError) as error:
                self._say(f"{error}; the certificate of before is in use")
            else:
                self._said = ""
                event(f"certificate {self._files.certificate} was renewed, until {_at(self._end)}")

    def close(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.close()
        self._listening.close()

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            say(sentence, level=logging.ERROR)


def _at(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
