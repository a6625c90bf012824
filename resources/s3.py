"""An S3-compatible store: how it is reached by those who read and write it. What lies in it, `delta_tables` and `s3_artifacts` know."""

from __future__ import annotations

import configparser
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from platform_assets.errors import OutageError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyarrow.fs import FileSystem

    from platform_assets.specs.team import StoreSpec

_CONNECT_SECONDS, _ANSWER_SECONDS, _TRIES = 5, 60, 5
_ERROR = 500
MISSING = ("NoSuchKey", "404", "NotFound")


class S3:
    """One bucket and a prefix in it. Secrets are read from the credentials file when the store is first used."""

    def __init__(self, server: StoreSpec, *, tries: int = _TRIES) -> None:
        self._server, self._tries = server, tries
        self.url = server.url.rstrip("/")
        place = urlsplit(self.url)
        self.bucket, self.prefix = place.netloc, place.path.strip("/")

    @cached_property
    def client(self) -> Any:
        """Return boto3's client: for whole objects."""
        return self._client("s3", self._server.endpoint)

    @property
    def has_kms(self) -> bool:
        """Whether a key service is named."""
        return self._server.kms is not None

    @cached_property
    def kms(self) -> Any:
        """Return boto3's client of the key service."""
        return self._client("kms", self._server.kms or self._server.endpoint)

    def _client(self, service: str, endpoint: str) -> Any:
        import boto3
        from botocore.config import Config

        key, secret = self._credentials
        config = Config(
            connect_timeout=_CONNECT_SECONDS, read_timeout=_ANSWER_SECONDS, retries={"max_attempts": self._tries, "mode": "standard"},
            s3={"addressing_style": "path"},
        )  # fmt: skip
        return boto3.client(
            service, endpoint_url=endpoint, region_name=self._server.region, aws_access_key_id=key, aws_secret_access_key=secret,
            verify=str(self._server.ca) if self._server.ca else None, config=config,
        )  # fmt: skip

    @cached_property
    def delta_options(self) -> dict[str, str]:
        """Return what Delta Lake is told of the store; whose certificates it takes, it reads from SSL_CERT_FILE alone."""
        key, secret = self._credentials
        return {
            "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": self._server.region,
            "AWS_ENDPOINT_URL": self._server.endpoint, "AWS_ALLOW_HTTP": str(self._server.ca is None).lower(),
            "AWS_CONDITIONAL_PUT": "etag",
        }  # fmt: skip

    @cached_property
    def filesystem(self) -> FileSystem:
        """Return Arrow's own file system, paths beginning with the bucket."""
        from pyarrow.fs import S3FileSystem

        key, secret = self._credentials
        place = urlsplit(self._server.endpoint)
        more = {"tls_ca_file_path": str(self._server.ca)} if self._server.ca else {}
        return S3FileSystem(
            access_key=key, secret_key=secret, region=self._server.region, scheme=place.scheme, endpoint_override=place.netloc,
            connect_timeout=_CONNECT_SECONDS, request_timeout=_ANSWER_SECONDS, **more,
        )  # fmt: skip

    def key(self, name: str) -> str:
        """Return the key of an object below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def read(self, name: str) -> bytes | None:
        """Return an object, or None where there is none."""
        from botocore.exceptions import ClientError

        with self.reached():
            try:
                return bytes(self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read())
            except ClientError as error:
                if error.response["Error"]["Code"] in MISSING:
                    return None
                raise

    def write(self, name: str, content: bytes) -> None:
        """Write an object: readers see the old one or the new one."""
        with self.reached():
            self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=content)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names below a folder, relative to it, and their sizes in bytes; of everything where it is no name."""
        return {name: int(one["Size"]) for name, one in self._objects(folder)}

    def times(self, folder: str) -> dict[str, float]:
        """Return the names below a folder, relative to it, and when each was written, in epoch seconds."""
        return {name: one["LastModified"].timestamp() for name, one in self._objects(folder)}

    def _objects(self, folder: str) -> Iterator[tuple[str, Any]]:
        base = self.key(f"{folder}/" if folder else "")
        with self.reached():
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=base):
                yield from ((one["Key"].removeprefix(base), one) for one in page.get("Contents", []))

    def download(self, name: str, target: Path) -> bool:
        """Copy an object of any size into a file; False where there is none."""
        from botocore.exceptions import ClientError

        with self.reached():
            try:
                self.client.download_file(self.bucket, self.key(name), str(target))
            except ClientError as error:
                if error.response["Error"]["Code"] in MISSING:
                    return False
                raise
        return True

    def upload(self, source: Path, name: str) -> None:
        """Copy a file of any size into an object."""
        with self.reached():
            self.client.upload_file(str(source), self.bucket, self.key(name))

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self.reached():
            self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Say in a sentence what the store answered, or that it did not."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            refused = isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < _ERROR
            raise (StateError if refused else OutageError)(
                f"the store {self.url} at {self._server.endpoint} could not be used: {' '.join(str(error).split())}"
            ) from error

    @cached_property
    def _credentials(self) -> tuple[str, str]:
        found = configparser.ConfigParser(interpolation=None)
        try:
            found.read_string(self._server.credentials.read_text(encoding="utf-8"))
            return found["default"]["aws_access_key_id"], found["default"]["aws_secret_access_key"]
        except (OSError, configparser.Error, KeyError, UnicodeDecodeError):
            raise StateError(
                f"{self._server.credentials} holds no credentials; right would be [default], and in it aws_access_key_id and "
                "aws_secret_access_key"
            ) from None
