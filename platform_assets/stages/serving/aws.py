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
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from platform_assets.errors import ReleaseError, SealError, StateError
from platform_assets.stages.serving.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
        self._store, self._kms = Remote(place.endpoint, ca=place.ca), Remote(place.kms or place.endpoint, ca=place.ca)
        self.where = place.url.rstrip("/")

    @property
    def has_kms(self) -> bool:
        """Whether a key service is named."""
        return self._place.kms is not None

    def read(self, name: str) -> bytes | None:
        """Return an object below the prefix, None where there is none; ReleaseError in a sentence where the store cannot be used."""
        found = urlsplit(self._place.url)
        path = "/".join(part for part in (found.netloc, found.path.strip("/"), name) if part)
        try:
            status, content = self._ask(self._store, "GET", f"/{quote(path, safe='/-_.~')}", b"", service="s3", headers={})
        except StateError as error:
            raise ReleaseError(str(error)) from None
        if status == HTTPStatus.OK:
            return content
        code = _between(content, b"<Code>", b"</Code>") or f"status {status}"
        if status == HTTPStatus.NOT_FOUND and code != "NoSuchBucket":
            return None
        raise ReleaseError(f"the store {self.where} at {self._place.endpoint} was asked for {name} and said: {code}")

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Have a data key unwrapped; SealError where it is another one or its key is gone, StateError where nobody answers."""
        body = json.dumps(
            {
                "KeyId": key_id, "CiphertextBlob": base64.b64encode(wrapped).decode(),
                "EncryptionContext": {CONTEXT: base64.b64encode(context).decode()},
            }
        ).encode()  # fmt: skip
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.Decrypt"}
        status, content = self._ask(self._kms, "POST", "/", body, service="kms", headers=headers)
        try:
            found = json.loads(content)
        except ValueError:
            found = {}
        if status == HTTPStatus.OK:
            return base64.b64decode(found["Plaintext"])
        raise refused_by_kms(str(found.get("__type", f"status {status}")).rpartition("#")[2], key_id=key_id, where=self._kms.url)

    def _ask(self, server: Remote, method: str, path: str, body: bytes, *, service: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        key, secret = self._credentials

        def signed() -> Mapping[str, str]:
            return sign(
                method, path, {**headers, "host": server.netloc}, body, service=service, region=self._place.region, key=key, secret=secret,
                at=datetime.now(UTC),
            )  # fmt: skip

        return server.ask(method, path, body, headers=signed)

    @cached_property
    def _credentials(self) -> tuple[str, str]:
        found = configparser.ConfigParser(interpolation=None)
        try:
            found.read_string(self._place.credentials.read_text(encoding="utf-8"))
            return found["default"]["aws_access_key_id"], found["default"]["aws_secret_access_key"]
        except (OSError, configparser.Error, KeyError, UnicodeDecodeError):
            raise StateError(
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
