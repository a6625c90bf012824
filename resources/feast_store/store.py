"""The feature store port on Feast. Feast is imported by the first call that needs it (about 6 CPU seconds), never by this module.

What Feast does: the registry, `get_historical_features`, `get_online_features`. What goes past it: bulk writes of online values.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from platform_assets.errors import DataError
from platform_assets.specs.record_json import to_json
from platform_assets.stages.features.schema import EVENT_TIMESTAMP
from platform_assets.stages.serving.online import FILE_NAME
from resources.feast_store.values import open_values
from resources.settings import silence_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import feast
    import pyarrow as pa

    from platform_assets.ports import TableStore
    from platform_assets.specs.records import Feature, ViewTable
    from platform_assets.stages.serving.online_redis import RedisPlace

_PROJECT = "falaj"
_FINGERPRINT = "falaj/fingerprint"  # tag of a registered view


class FeastFeatureStore:
    """Feast over Delta tables and newest values in a SQLite file or a Redis; the registry is a file."""

    def __init__(self, home: Path, *, tables: TableStore, online: Path | RedisPlace | None = None) -> None:
        """Keep the registry in `home`, and the newest values too, unless another place is named; nothing is opened yet."""
        self._home = home
        self._tables = tables
        self._online = online or home / FILE_NAME
        self._values = open_values(self._online)
        self._feast: feast.FeatureStore | None = None
        self._lock = RLock()

    def apply(self, views: Sequence[ViewTable]) -> bool:
        """Register views; False where every one is registered as asked, which is told without importing Feast.

        The version of a view's table is not compared: `historical` pins versions itself, for each join.
        """
        definitions = {view.name: _definition(view) for view in views}
        with self._held():
            noted = self._noted()
            if all(noted.get(name) == definition for name, definition in definitions.items()):
                return False
            self._register(views)
            self._note({**noted, **definitions})
        return True

    def materialise(self, view: ViewTable) -> int:
        """Bring online values up to the pinned table; late rows of an entity that has newer ones change nothing."""
        if self._values.pin(view.name) == to_json(view.pin):
            return 0
        rows = self._tables.read(view.pin, columns=[view.entity, EVENT_TIMESTAMP, *view.kinds])
        return self._values.write_view(view, rows)

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those of these entities that have newest values."""
        return self._values.held(view, entities)

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Delete the newest values of these entities."""
        return self._values.forget(view, entities)

    def online(self, view: ViewTable, entities: Sequence[str]) -> list[dict[str, Any] | None]:
        """Read through Feast's own API."""
        from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

        refs = [f"{view.name}:{name}" for name in view.kinds]
        with self._held():
            response = self._store().get_online_features(features=refs, entity_rows=[{view.entity: value} for value in entities])
        values = response.to_dict()
        names = list(response.proto.metadata.feature_names.val)
        statuses = dict(zip(names, (list(result.statuses) for result in response.proto.results), strict=True))
        unknown = [all(statuses[name][row] == FieldStatus.NOT_FOUND for name in view.kinds) for row in range(len(entities))]
        return [None if unknown[row] else {name: _naive(values[name][row]) for name in view.kinds} for row in range(len(entities))]

    def historical(self, entities: pa.Table, features: Sequence[Feature], *, views: Sequence[ViewTable], event_time: str) -> pa.Table:
        """Join through Feast's `get_historical_features` over our offline store, at exactly the pinned versions."""
        import pyarrow as pa

        unknown = sorted({feature.view for feature in features} - {view.name for view in views})
        if unknown:
            raise DataError(
                f"features of the views {', '.join(unknown)} are asked for, without the versions of their tables; pass these views"
            )
        keys = {view.entity: entities[view.entity].cast(pa.string()) for view in views}
        rows = pa.table({**keys, EVENT_TIMESTAMP: entities[event_time].cast(pa.timestamp("us"))})
        refs = [f"{feature.view}:{feature.name}" for feature in features]
        with self._held():
            self._register(views)
            # Sources, and with them versions, are bound here; the join itself needs no lock.
            job = self._store().get_historical_features(entity_df=rows, features=refs, full_feature_names=True)
        joined = job.to_arrow()
        return pa.table({feature.name: joined[f"{feature.view}__{feature.name}"] for feature in features})

    def open_feast(self, views: Sequence[ViewTable]) -> feast.FeatureStore:
        """Return Feast's own `FeatureStore`, with these views registered at exactly their pinned versions."""
        with self._held():
            self._register(views)
            return self._store()

    def _register(self, views: Sequence[ViewTable]) -> None:
        from feast.errors import FeatureViewNotFoundException

        store, changed = self._store(), []
        for view in views:
            fingerprint = _fingerprint(view, location=self._tables.location(view.pin.table))
            try:
                known = store.registry.get_feature_view(view.name, _PROJECT).tags.get(_FINGERPRINT)
            except FeatureViewNotFoundException:
                known = None
            if known != fingerprint:
                changed += self._feast_objects(view, fingerprint=fingerprint)
        if changed:
            store.apply(changed)

    def _feast_objects(self, view: ViewTable, *, fingerprint: str) -> list[Any]:
        from feast import Entity, FeatureView, Field, ValueType
        from feast.types import Array, Float32, Float64, String, UnixTimestamp

        from resources.feast_store.source import DeltaSource

        types: dict[str, Any] = {"numeric": Float64, "category": String, "text": String, "date": UnixTimestamp, "image": Array(Float32)}
        entity = Entity(name=view.entity, join_keys=[view.entity], value_type=ValueType.STRING)
        source = DeltaSource(
            name=view.name, path=self._tables.location(view.pin.table), version=view.pin.version, timestamp_field=EVENT_TIMESTAMP
        )
        schema = [Field(name=view.entity, dtype=String), *(Field(name=name, dtype=types[kind]) for name, kind in view.kinds.items())]
        tags = {_FINGERPRINT: fingerprint}
        ttl = timedelta(seconds=view.ttl_seconds)
        return [entity, FeatureView(name=view.name, entities=[entity], schema=schema, source=source, ttl=ttl, tags=tags)]

    def _store(self) -> feast.FeatureStore:
        if self._feast is None or not self._registry_path.exists():
            silence_telemetry()
            from feast import FeatureStore, RepoConfig
            from feast.repo_config import RegistryConfig

            registry = RegistryConfig(
                registry_store_type="resources.feast_store.registry.AtomicRegistryStore",
                path=str(self._registry_path),
                cache_ttl_seconds=0,  # for ever: it is read anew where the lock is taken
            )
            config = RepoConfig(
                project=_PROJECT,
                provider="local",
                registry=registry,
                offline_store={"type": "resources.feast_store.offline.DeltaOfflineStore"},
                online_store={
                    "type": "resources.feast_store.online.TableOnlineStore",
                    "path" if isinstance(self._online, Path) else "redis": self._online,
                },
                entity_key_serialization_version=3,
                repo_path=self._home,
            )
            self._feast = FeatureStore(config=config)
        else:
            self._feast.refresh_registry()
        return self._feast

    @property
    def _registry_path(self) -> Path:
        return self._home / "registry.db"

    @property
    def _note_path(self) -> Path:
        return self._home / "applied.json"

    def _noted(self) -> dict[str, str]:
        """Definitions registered before, by view; none where the registry is gone."""
        if not (self._note_path.exists() and self._registry_path.exists()):
            return {}
        definitions: dict[str, str] = json.loads(self._note_path.read_text())
        return definitions

    def _note(self, definitions: dict[str, str]) -> None:
        beside = self._note_path.with_name(f"{self._note_path.name}.{os.getpid()}.part")
        beside.write_text(json.dumps(definitions, sort_keys=True))
        beside.replace(self._note_path)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the registry against other threads and processes: Feast reads, changes and rewrites it whole without a lock."""
        self._home.mkdir(parents=True, exist_ok=True)
        with self._lock, (self._home / ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _naive(value: Any) -> Any:
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _definition(view: ViewTable) -> str:
    """All that Feast knows of a view, but the version of its table."""
    text = {name: value for name, value in asdict(view).items() if name != "pin"} | {"table": view.pin.table}
    return hashlib.sha256(to_json(text).encode()).hexdigest()


def _fingerprint(view: ViewTable, *, location: str) -> str:
    return hashlib.sha256(f"{location}\n{to_json(view)}".encode()).hexdigest()
