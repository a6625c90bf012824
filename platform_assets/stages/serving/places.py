"""Of a team's settings file, what the inference server needs: where newest values, releases and the keys that wrap are.

What the whole file may hold is `specs/team.py`'s, which cannot be used here: pydantic is no part of a serving environment.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platform_assets.errors import ServingError
from platform_assets.stages.serving.aws import StorePlace
from platform_assets.stages.serving.online_redis import RedisPlace
from platform_assets.stages.serving.vault import VaultPlace


@dataclass(frozen=True)
class Places:
    """Where a team's servers are."""

    redis: RedisPlace
    store: StorePlace | None
    vault: VaultPlace | None


def read_places(file: Path) -> Places:
    """Read the file; ServingError in a sentence where it cannot be used, or a server would be spoken to without being verified."""
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ServingError(f"--team {file} cannot be read as the settings file of a team: {error}") from None
    redis, store, vault = (_Table(file, found, name) for name in ("redis", "store", "vault"))
    if not redis.found:
        raise ServingError(f"--team {file} has no table [redis]; infra/team/team.toml shows every table and key")
    return Places(
        redis=RedisPlace(redis.address("url"), *(redis.file(name) for name in ("password_file", "ca", "certificate", "key"))),
        store=StorePlace(
            url=store.text("url"), endpoint=store.address("endpoint"), credentials=store.needed_file("credentials"),
            region=store.found.get("region", "us-east-1"), ca=store.file("ca"), kms=store.address("kms") if "kms" in store.found else None,
        ) if store.found else None,
        vault=VaultPlace(
            vault.address("url"), vault.needed_file("token_file"), vault.found.get("mount", "transit"), vault.found.get("key", "falaj"),
            vault.found.get("namespace"), vault.file("ca"),
        ) if vault.found else None,
    )  # fmt: skip


class _Table:
    def __init__(self, file: Path, found: dict[str, Any], name: str) -> None:
        self._file, self._name = file, name
        self.found: dict[str, Any] = found.get(name) or {}

    def text(self, key: str) -> str:
        value = self.found.get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "is missing; infra/team/team.toml shows every table and key")
        return value

    def address(self, key: str) -> str:
        """Return an address whose server is verified, or on loopback."""
        url = self.text(key)
        found = urlsplit(url)
        host = found.hostname or ""
        if not host or found.password is not None or found.query:
            raise self._wrong(key, "is no plain address; a password stands in a file of its own")
        if ("ca" in self.found) != (found.scheme in {"rediss", "https"}):
            raise self._wrong(key, f"is of scheme {found.scheme}://; ca and a scheme of TLS go together")
        if "ca" not in self.found and host not in {"localhost", "::1"} and not host.startswith("127."):
            raise self._wrong(key, f"names {host}, which is not on loopback, without ca; it would not be verified")
        return url

    def file(self, key: str) -> Path | None:
        if key not in self.found:
            return None
        return self.needed_file(key)

    def needed_file(self, key: str) -> Path:
        path = Path(self.text(key))
        if not path.is_file():
            raise self._wrong(key, f"there is no file {str(path)!r}; name one that this user can read")
        return path

    def _wrong(self, key: str, what: str) -> ServingError:
        return ServingError(f"--team {self._file}: {self._name}.{key}: {what}")
