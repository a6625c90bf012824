"""Feast's registry file, replaced whole: Feast's own store truncates it first, and a kill in between would lose every view."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from feast.infra.registry.file import FileRegistryStore

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto


class AtomicRegistryStore(FileRegistryStore):
    """A registry file that is written beside and renamed."""

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        final = self._filepath
        beside = final.with_name(f"{final.name}.{os.getpid()}.part")
        self._filepath = beside
        try:
            super()._write_registry(registry_proto)
        finally:
            self._filepath = final
        beside.replace(final)
