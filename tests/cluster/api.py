"""The API server, asked as one of its users: JSON in, JSON out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

Object = dict[str, Any]
_PATCH = {"content-type": "application/strategic-merge-patch+json"}


class RefusedError(Exception):
    """What the API server did not do, in its own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


@dataclass(frozen=True)
class Api:
    """`token` says who asks."""

    url: str
    authority: Path
    token: str

    def ask(self, method: str, path: str, body: Object | None = None, *, headers: dict[str, str] | None = None, **query: str) -> Any:
        """Return the answer, text where it is text; RefusedError where it is none."""
        told = {"authorization": f"Bearer {self.token}", **(headers or {})}
        found = requests.request(method, self.url + path, json=body, params=query, headers=told, verify=str(self.authority), timeout=30)
        value = found.json() if "json" in found.headers.get("content-type", "") else found.text
        if not found.ok:
            raise RefusedError(found.status_code, value["message"] if isinstance(value, dict) else value)
        return value

    def get(self, path: str, **query: str) -> Any:
        return self.ask("GET", path, **query)

    def post(self, path: str, body: Object) -> Object:
        return self.ask("POST", path, body)

    def put(self, path: str, body: Object) -> Object:
        return self.ask("PUT", path, body)

    def patch(self, path: str, body: Object) -> Object:
        return self.ask("PATCH", path, body, headers=_PATCH)

    def delete(self, path: str, *, grace_seconds: int | None = None) -> None:
        self.ask("DELETE", path, {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds})

    def items(self, path: str, **query: str) -> list[Object]:
        return self.get(path, **query)["items"]

    def write_kubeconfig(self, file: Path, *, namespace: str = "default") -> Path:
        """What kubectl and the kubernetes client read to ask as this user."""
        told = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "users": [{"name": "x", "user": {"token": self.token}}],
            "clusters": [{"name": "x", "cluster": {"server": self.url, "certificate-authority": str(self.authority)}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": namespace}}],
        }  # fmt: skip
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(told))
        return file
