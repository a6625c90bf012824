"""An S3-compatible store and its key service, as the inference server reads them: signed requests over the standard library.

boto3 would be 36 MB of the 250 that a serving environment may have, and a third of a second of every start; what is needed here is one GET
and one Decrypt. Signatures: AWS Signature Version 4 ("Signature Version 4 signing process", AWS General Reference); tests hold them
against botocore's.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import hmac
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from platform_assets.errors import ReleaseError, SealError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TIMEOUT_SECONDS, _TRIES, _PAUSE_SECONDS = 10.0, 3, 0.2
_ALGORITHM = "AWS4-HMAC-SHA256"
CONTEXT = "falaj"  # name of our entry in a key's encryption context


@dataclass(frozen=True)
class StorePlace:
    """Where a store is and how it is spoken to; key and secret stand in the credentials file."""

    url: str  # s3://BUCKET/PREFIX
    endpoint: str
    credentials: Path
    region: str = "us-east-1"
    ca: Path | None = None
    kms: str | None = None


class StoreReader:
    """Reads objects of a store, and has its key service unwrap data keys."""

    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self.where = place.url.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return an object below the prefix, None where there is none; ReleaseError in a sentence where the store cannot be used."""
        found = urlsplit(self._place.url)
        path = "/".join(part for part in (found.netloc, found.path.strip("/"), name) if part)
        status, content = self._ask(self._place.endpoint, "GET", f"/{quote(path, safe='/-_.~')}", b"", service="s3", headers={})
        if status == HTTPStatus.OK:
            return content
        code = _between(content, b"<Code>", b"</Code>") or f"status {status}"
        if status == HTTPStatus.NOT_FOUND and code != "NoSuchBucket":
            return None
        raise ReleaseError(f"the store {self.where} at {self._place.endpoint} was asked for {name} and said: {code}")

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Have a data key unwrapped; SealError where it is another one or its key is gone, StateError where nobody answers."""
        place = self._place
        assert place.kms is not None
        body = json.dumps(
            {
                "KeyId": key_id, "CiphertextBlob": base64.b64encode(wrapped).decode(),
                "EncryptionContext": {CONTEXT: base64.b64encode(context).decode()},
            }
        ).encode()  # fmt: skip
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.Decrypt"}
        try:
            status, content = self._ask(place.kms, "POST", "/", body, service="kms", headers=headers)
        except ReleaseError as error:
            raise StateError(str(error)) from None
        try:
            found = json.loads(content)
        except ValueError:
            found = {}
        if status == HTTPStatus.OK:
            return base64.b64decode(found["Plaintext"])
        raise refused_by_kms(str(found.get("__type", f"status {status}")).rpartition("#")[2], key_id=key_id, where=place.kms)

    def _ask(self, endpoint: str, method: str, path: str, body: bytes, *, service: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        key, secret = self._credentials
        address = urlsplit(endpoint)
        last = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_SECONDS)
            signed = sign(
                method, path, {**headers, "host": address.netloc}, body, service=service, region=self._place.region, key=key, secret=secret,
                at=datetime.now(UTC),
            )  # fmt: skip
            connection = self._connect(address.hostname or "", address.port, tls=address.scheme == "https")
            try:
                connection.request(method, path, body=body or None, headers=signed)
                reply = connection.getresponse()
                content = reply.read()
            except ssl.SSLCertVerificationError as error:
                raise ReleaseError(f"{endpoint} was not trusted: {error.verify_message}; `ca` names whose certificates are") from None
            except (OSError, http.client.HTTPException) as error:
                last = " ".join(str(error).split()) or type(error).__name__
            else:
                if reply.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return reply.status, content
                last = f"status {reply.status}"
            finally:
                connection.close()
        raise ReleaseError(f"{endpoint} did not answer, {_TRIES} times: {last}")

    def _connect(self, host: str, port: int | None, *, tls: bool) -> http.client.HTTPConnection:
        if not tls:
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=self._trust)

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._place.ca)
        except (OSError, ssl.SSLError) as error:
            raise ReleaseError(f"{self._place.ca} holds no certificates in PEM form ({error})") from None

    @cached_property
    def _credentials(self) -> tuple[str, str]:
        found = configparser.ConfigParser(interpolation=None)
        try:
            found.read_string(self._place.credentials.read_text(encoding="utf-8"))
            return found["default"]["aws_access_key_id"], found["default"]["aws_secret_access_key"]
        except (OSError, configparser.Error, KeyError, UnicodeDecodeError):
            raise ReleaseError(
                f"{self._place.credentials} holds no credentials; right would be [default], and in it aws_access_key_id and "
                "aws_secret_access_key"
            ) from None


def refused_by_kms(code: str, *, key_id: str, where: str) -> SealError | StateError:
    """Say what a key service's refusal means."""
    if code in {"NotFoundException", "KMSInvalidStateException", "DisabledException"}:
        return SealError(
            f"it is encrypted under key {key_id}, which is not in the key service at {where} any more; without it nobody can read this",
            reason="key lost",
        )
    if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
        return SealError("the wrapped key of it was altered", reason="altered")
    return StateError(f"the key service at {where} was asked to unwrap a key and said: {code}")


def sign(
    method: str, path: str, headers: Mapping[str, str], body: bytes, *, service: str, region: str, key: str, secret: str, at: datetime
) -> dict[str, str]:
    """Return the headers of a signed request; `headers` have lower-case names, `host` among them, and `path` is quoted already."""
    stamp, digest = at.strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(body).hexdigest()
    signed = {**headers, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    derived = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    signature = hmac.digest(derived, text.encode(), "sha256").hex()
    return {**signed, "authorization": f"{_ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"}


def _between(content: bytes, start: bytes, end: bytes) -> str:
    return content.partition(start)[2].partition(end)[0][:100].decode(errors="replace")
