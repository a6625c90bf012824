"""The servers of a team (`FALAJ_ENV=team`): the shape of its one settings file. Whether they answer is asked in `resources/team.py`."""

from __future__ import annotations

from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, FilePath, field_validator, model_validator

from platform_assets.specs.base import Jurisdiction, Spec
from platform_assets.specs.places import is_loopback


class _Server(Spec):
    ca: FilePath | None = Field(
        None, description="Certificates (PEM) that the server's must come from; required unless the server is on loopback."
    )
    jurisdiction: Jurisdiction | None = Field(
        None, description="Whose law holds where it stands, ISO 3166-1 alpha-2; left out on loopback alone, where it is this machine's."
    )

    def _check_open(self, url: str, field: str) -> None:
        host = urlsplit(url).hostname or ""
        if is_loopback(host):
            return
        if self.ca is None:
            raise ValueError(
                f"{field} names {host}, which is not on loopback, without ca; name the file of certificates that it is held to"
            )
        if self.jurisdiction is None:
            raise ValueError(f"{field} names {host}, which is not on loopback, without jurisdiction; say whose law holds there, such as AE")

    def _check_tls(self, url: str, field: str) -> None:
        self._check_open(url, field)
        if (self.ca is not None) != url.startswith("https:"):
            raise ValueError(f"{field}: ca and the scheme https:// go together; name both for TLS, or neither on loopback")


class _KnownByCertificate(_Server):
    certificate: FilePath | None = Field(None, description="This platform's own certificate (PEM), where the server asks for one.")
    key: FilePath | None = Field(None, description="Private key (PEM) of that certificate, readable by its owner alone.")

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("of certificate and key only one is named; name both, or neither")
        return self


class PostgresqlSpec(_KnownByCertificate):
    """One database; Dagster, MLflow, Optuna and this platform each have a schema of their own in it."""

    url: str = Field(description="`postgresql://USER@HOST:PORT/DATABASE`, without a password.")
    passfile: FilePath | None = Field(None, description="Password file of libpq: a line `HOST:PORT:DATABASE:USER:PASSWORD`, mode 0600.")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        found = _plain_url(url, schemes=("postgresql",), right="postgresql://USER@HOST:PORT/DATABASE", kept_in="passfile")
        if not found.username or not found.path.strip("/"):
            raise ValueError(f"{url!r} lacks a user or a database; right would be postgresql://USER@HOST:PORT/DATABASE")
        return url

    @model_validator(mode="after")
    def _is_verified(self) -> Self:
        self._check_open(self.url, "url")
        return self


class RedisSpec(_KnownByCertificate):
    """One Redis database: queues of events, and newest values of feature views."""

    url: str = Field(description="`redis://HOST:PORT/DB`, or `rediss://` for TLS, without a password.")
    password_file: FilePath | None = Field(None, description="File with the user's password, mode 0600.")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        _plain_url(url, schemes=("redis", "rediss"), right="redis://HOST:PORT/DB", kept_in="password_file")
        return url

    @model_validator(mode="after")
    def _is_verified(self) -> Self:
        self._check_open(self.url, "url")
        if (self.ca is not None) != self.url.startswith("rediss:"):
            raise ValueError("ca and the scheme rediss:// go together; name both for TLS, or neither on loopback")
        return self


class StoreSpec(_Server):
    """An S3-compatible store: tables, artefacts, releases, checkpoints. It must refuse a second first write of a key (`If-None-Match`)."""

    url: str = Field(description="`s3://BUCKET/PREFIX`; the bucket is there, the prefix need not be.")
    endpoint: str = Field(description="`https://HOST:PORT`, or `http://` on loopback.")
    region: str = Field("us-east-1", description="Region, as the store names it.")
    credentials: FilePath = Field(
        description="AWS credentials file: `[default]`, `aws_access_key_id` and `aws_secret_access_key`, mode 0600."
    )

    kms: str | None = Field(
        None, description="Its key service (AWS KMS's interface), as `endpoint`; left out, the keys that wrap lie in FALAJ_HOME."
    )

    @field_validator("url")
    @classmethod
    def _is_bucket(cls, url: str) -> str:
        found = _plain_url(url, schemes=("s3",), right="s3://BUCKET/PREFIX", kept_in="credentials")
        if found.port is not None or found.username is not None:
            raise ValueError(f"{url!r} names more than a bucket and a prefix; right would be s3://BUCKET/PREFIX")
        return url

    @field_validator("endpoint", "kms")
    @classmethod
    def _is_endpoint(cls, url: str | None) -> str | None:
        if url is None:
            return None
        return _endpoint(url, kept_in="credentials")

    @model_validator(mode="after")
    def _is_verified(self) -> Self:
        for field, url in (("endpoint", self.endpoint), ("kms", self.kms)):
            if url is None:
                continue
            self._check_tls(url, field)
        return self


class VaultSpec(_Server):
    """A Vault, 1.13 or newer: data keys of releases and of personal columns are wrapped by a key of its transit engine."""

    url: str = Field(description="`https://HOST:PORT`, or `http://` on loopback.")
    token_file: FilePath = Field(description="File with a token, mode 0600, read at each request: Vault Agent keeps it fresh.")
    mount: str = Field("transit", pattern=r"^\w[\w./-]*$", description="Where the transit engine is mounted.")
    key: str = Field("falaj", pattern=r"^\w([\w.-]*\w)?$", description="Name of the key; made at first use, where the token may.")
    namespace: str | None = Field(None, description="Namespace, where Vault has such.")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        return _endpoint(url, kept_in="token_file")

    @model_validator(mode="after")
    def _is_verified(self) -> Self:
        self._check_tls(self.url, "url")
        return self


class TeamSpec(Spec):
    """What `FALAJ_TEAM` names: a TOML file with one table a server."""

    postgresql: PostgresqlSpec
    redis: RedisSpec
    store: StoreSpec | None = Field(None, description="Left out, all that would lie there lies in FALAJ_HOME.")
    vault: VaultSpec | None = Field(None, description="Left out, keys are wrapped by the store's `kms`, or lie in FALAJ_HOME.")

    @model_validator(mode="after")
    def _keys_are_wrapped_once(self) -> Self:
        if self.vault is not None and self.store is not None and self.store.kms is not None:
            raise ValueError("both store.kms and [vault] are named, and keys are wrapped by one service; leave one of them out")
        return self


def spec_of(table: str) -> type[Spec]:
    """Return the shape of one table of the file."""
    kinds: dict[str, type[Spec]] = {"postgresql": PostgresqlSpec, "redis": RedisSpec, "store": StoreSpec, "vault": VaultSpec}
    return kinds[table]


def _endpoint(url: str, *, kept_in: str) -> str:
    found = _plain_url(url, schemes=("http", "https"), right="https://HOST:PORT", kept_in=kept_in)
    if found.path.strip("/"):
        raise ValueError(f"{url!r} has a path; right would be https://HOST:PORT")
    return url.rstrip("/")


def _plain_url(url: str, *, schemes: tuple[str, ...], right: str, kept_in: str) -> SplitResult:
    found = urlsplit(url)
    if found.scheme not in schemes or not found.hostname:
        raise ValueError(f"{url!r} is no address of this kind; right would be {right}")
    if found.password is not None:
        raise ValueError(f"a password stands in the address of {found.hostname}; write it into the file that {kept_in} names")
    if found.query or found.fragment:
        raise ValueError(f"{url!r} has parameters; each has a key of its own in this file, right would be {right}")
    try:
        _ = found.port
    except ValueError:
        raise ValueError(f"{url!r} has no port from 1 to 65535; right would be {right}") from None
    return found
