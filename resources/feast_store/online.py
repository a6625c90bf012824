"""Feast's online store over the platform's own layouts, in a SQLite file or a Redis. Feast loads this module by its dotted path.

Bulk writes go past Feast, through `values`; this class is how Feast's own API reads them back, and writes single batches.
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.Value_pb2 import FloatList
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.repo_config import FeastConfigBaseModel
from feast.utils import to_naive_utc
from feast.value_type import ValueType

from platform_assets.stages.serving.online import MICROSECONDS_A_DAY
from platform_assets.stages.serving.online_redis import RedisPlace
from resources.feast_store.values import open_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feast import Entity, FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
    from feast.repo_config import RepoConfig

    from platform_assets.stages.serving.online import NewestValues
    from resources.feast_store.values import OnlineValues

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 all times here are naive UTC
_MICROSECOND = timedelta(microseconds=1)
_KINDS = {ValueType.DOUBLE: "numeric", ValueType.STRING: "category", ValueType.UNIX_TIMESTAMP: "date", ValueType.FLOAT_LIST: "image"}


class TableOnlineStoreConfig(FeastConfigBaseModel):
    """Where the values are: a file, or a Redis (`RedisPlace`, which holds no secret)."""

    type: Literal["resources.feast_store.online.TableOnlineStore"] = "resources.feast_store.online.TableOnlineStore"
    path: Path | None = None
    redis: RedisPlace | None = None


class TableOnlineStore(OnlineStore):
    """A row an entity: Feast's SQLite store writes a row a feature, and takes 40 s for 50,000 entities."""

    def __init__(self) -> None:
        self._reader: NewestValues | None = None

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows as Feast hands them over; an older row than what is there changes nothing."""
        kinds = _kinds(table)
        # Values that a row does not bring are written as missing: a row is one state of its entity.
        rows = [
            (_entity_text(key), _microseconds(stamp), *(_from_proto(values.get(name, ValueProto())) for name in kinds))
            for key, values, stamp, _ in data
        ]
        _values(config).upsert(table.name, kinds=kinds, rows=rows)
        if progress:
            progress(len(rows))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Newest values by entity, in order; (None, None) where one is unknown."""
        if self._reader is None:
            self._reader = _values(config).reader()
        kinds = _kinds(table)
        wanted = [name for name in kinds if requested_features is None or name in requested_features]
        rows = self._reader.read_stamped(table.name, [_entity_text(key) for key in entity_keys])
        return [
            (None, None)
            if row is None
            else ((_EPOCH + row[0] * _MICROSECOND).replace(tzinfo=UTC), {name: _to_proto(row[1].get(name), kinds[name]) for name in wanted})
            for row in rows
        ]

    def update(  # noqa: PLR0917 Feast calls by position
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],  # noqa: ARG002 entities have no tables of their own
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
        partial: bool,  # noqa: ARG002, FBT001 Feast's signature
    ) -> None:
        """Make room for registered views, drop the values of removed ones."""
        values = _values(config)
        for view in tables_to_keep:
            values.ensure(view.name, kinds=_kinds(view))
        for view in tables_to_delete:
            values.drop(view.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:  # noqa: ARG002 Feast's signature
        """Drop the values of these views."""
        values = _values(config)
        for view in tables:
            values.drop(view.name)


def _values(config: RepoConfig) -> OnlineValues:
    return open_values(config.online_store.redis or config.online_store.path)


def _kinds(view: FeatureView) -> dict[str, str]:
    types = {field.name: field.dtype.to_value_type() for field in view.features}
    unknown = sorted(name for name, value_type in types.items() if value_type not in _KINDS)
    if unknown:
        held = ", ".join(value_type.name for value_type in _KINDS)
        raise TypeError(f"view {view.name}: the online store does not hold the types of {', '.join(unknown)}; it holds {held}")
    return {name: _KINDS[value_type] for name, value_type in types.items()}


def _entity_text(key: EntityKeyProto) -> str:
    if len(key.entity_values) != 1:
        raise ValueError(f"online values are kept by one entity, these keys have {len(key.entity_values)}: {', '.join(key.join_keys)}")
    value = key.entity_values[0]
    return str(getattr(value, value.WhichOneof("val")))


def _microseconds(stamp: datetime) -> int:
    return (to_naive_utc(stamp) - _EPOCH) // _MICROSECOND


def _from_proto(value: ValueProto) -> Any:
    name = value.WhichOneof("val")
    if name is None:
        return None
    if name == "float_list_val":
        return array("f", value.float_list_val.val).tobytes()
    content = getattr(value, name)
    return content * 1_000_000 if name == "unix_timestamp_val" else content  # Feast's timestamps are whole seconds


def _to_proto(value: Any, kind: str) -> ValueProto:
    if value is None:
        return ValueProto()
    if kind == "numeric":
        return ValueProto(double_val=value)
    if kind == "category":
        return ValueProto(string_val=value)
    if kind == "date":
        return ValueProto(unix_timestamp_val=round(value * MICROSECONDS_A_DAY) // 1_000_000)
    return ValueProto(float_list_val=FloatList(val=value))
