"""Keys of a team in the key service of its store (AWS KMS's interface): data keys are wrapped there, and the keys never leave it.

`alias/falaj/BUCKET/PREFIX/NUMBER` names a key; the one of the highest number wraps. An alias can be made once alone, so that two makers
of the same number agree on one key.
"""

from __future__ import annotations

import base64
import contextlib
import re
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from platform_assets.errors import SealError, StateError
from platform_assets.stages.serving.aws import CONTEXT, refused_by_kms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resources.s3 import S3

_LOST_AFTER_DAYS = 7  # the least that the interface knows; until then a person can take the destruction back


class KmsKeys:
    """The Keys port over a key service."""

    def __init__(self, store: S3) -> None:
        self._store = store
        place = re.sub(r"[^A-Za-z0-9/_-]", "-", f"{store.bucket}/{store.prefix}".rstrip("/"))
        self._name = f"alias/falaj/{place}/"

    def current(self) -> str:
        """Return the id of the key that wraps."""
        found = self.ids()
        if not found:
            raise SealError(f"there is no key {self._name}* in the key service at {self._where}", reason="key lost")
        return found[-1]

    def ids(self) -> list[str]:
        """Return the ids of all keys, oldest first."""
        return [key for _, key in sorted(self._keys().items())]

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Return the id of the key in use, and the data key wrapped under it; the first key is made here."""
        keys = self.ids()
        key_id = keys[-1] if keys else self.add()
        with self._reached():
            said = self._client.encrypt(KeyId=key_id, Plaintext=data_key, EncryptionContext=_context(context))
        return key_id, bytes(said["CiphertextBlob"])

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the data key; SealError where its key is gone, or where wrapped key or context are other ones."""
        from botocore.exceptions import ClientError

        with self._reached():
            try:
                said = self._client.decrypt(KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_context(context))
            except ClientError as error:
                raise refused_by_kms(error.response["Error"]["Code"], key_id=key_id, where=self._where) from None
        return bytes(said["Plaintext"])

    def add(self) -> str:
        """Make a key and use it from now on; one that somebody else made at the same moment is taken instead."""
        from botocore.exceptions import ClientError

        keys = self._keys()
        number = max(keys, default=0) + 1
        with self._reached():
            key_id = str(self._client.create_key(Description="falaj: wraps data keys")["KeyMetadata"]["KeyId"])
            try:
                self._client.create_alias(AliasName=f"{self._name}{number:06d}", TargetKeyId=key_id)
            except ClientError as error:
                if error.response["Error"]["Code"] != "AlreadyExistsException":
                    raise
                self._client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=_LOST_AFTER_DAYS)
                return self._keys()[number]
        return key_id

    def forget(self, key_id: str) -> None:
        """Have a key destroyed, in a week; the one in use stays."""
        from botocore.exceptions import ClientError

        keys = self._keys()
        number = next((number for number, one in keys.items() if one == key_id), None)
        if number is None or number == max(keys):
            return
        with self._reached():
            with contextlib.suppress(ClientError):  # a killed call had it scheduled already
                self._client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=_LOST_AFTER_DAYS)
            self._client.delete_alias(AliasName=f"{self._name}{number:06d}")

    def _keys(self) -> dict[int, str]:
        found = {}
        with self._reached():
            for page in self._client.get_paginator("list_aliases").paginate():
                for one in page["Aliases"]:
                    number = one["AliasName"].removeprefix(self._name)
                    if one["AliasName"].startswith(self._name) and number.isdigit():
                        found[int(number)] = str(one["TargetKeyId"])
        return found

    @cached_property
    def _client(self) -> Any:
        return self._store.kms

    @property
    def _where(self) -> str:
        return str(self._client.meta.endpoint_url)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise StateError(f"the key service at {self._where} could not be used: {' '.join(str(error).split())}") from None


def _context(context: bytes) -> dict[str, str]:
    return {CONTEXT: base64.b64encode(context).decode()}
