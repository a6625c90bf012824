"""The key that personal columns are sealed under: one data key in a file, wrapped under the keyring; made at first use."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from platform_assets.errors import SealError
from platform_assets.sealing.values import ValueCipher, make_value_key
from resources.home import ensure_secret, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.ports import Keys

COLUMN_KEY_FILE = "columns.key.json"
_CONTEXT = b"falaj personal columns"


class ColumnKey:
    """One key for all personal columns of a home, which never lies in the open."""

    def __init__(self, keys_dir: Path, *, keys: Keys) -> None:
        self._file, self._keys = keys_dir / COLUMN_KEY_FILE, keys

    def cipher(self) -> ValueCipher:
        """Return the cipher; two makers of the first key agree on one."""
        if not self._file.exists():
            ensure_secret(self._file, content=self._wrapped(make_value_key()))
        return ValueCipher(self._open())

    def rewrap(self) -> None:
        """Bring the key to the keyring's newest one; no value is sealed anew. Nothing is done where there is no key yet."""
        if self._file.exists():
            write_atomically(self._file, self._wrapped(self._open()), mode=0o600)

    def _open(self) -> bytes:
        found = json.loads(self._file.read_bytes())
        try:
            return self._keys.unwrap(found["key_id"], base64.b64decode(found["wrapped"]), context=_CONTEXT)
        except SealError as error:
            raise SealError(
                f"personal columns of this home cannot be read: {self._file} is wrapped under key {found['key_id']}, and {error}",
                reason=error.reason,
            ) from error

    def _wrapped(self, key: bytes) -> bytes:
        key_id, wrapped = self._keys.wrap(key, context=_CONTEXT)
        return json.dumps({"key_id": key_id, "wrapped": base64.b64encode(wrapped).decode()}).encode()
