"""A feature store in memory that says by brute force what the real one must say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.stages.features.schema import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pyarrow as pa

    from platform_assets.ports import TableStore
    from platform_assets.specs.records import Feature, TablePin, ViewTable


class MemoryFeatureStore:
    """Implements `ports.FeatureStore` over any table store."""

    def __init__(self, tables: TableStore) -> None:
        """Start empty."""
        self._tables = tables
        self._applied: dict[str, ViewTable] = {}
        self._pins: dict[str, TablePin] = {}
        self._online: dict[str, dict[str, dict[str, Any]]] = {}

    def apply(self, views: Sequence[ViewTable]) -> bool:
        """Register views; a newer version of a view's table is no change."""
        changed = [view for view in views if _definition(self._applied.get(view.name)) != _definition(view)]
        self._applied.update({view.name: view for view in views})
        return bool(changed)

    def materialise(self, view: ViewTable) -> int:
        """Keep the newest row of each entity; return how many changed."""
        if self._pins.get(view.name) == view.pin:
            return 0
        held = self._online.setdefault(view.name, {})
        before = dict(held)
        for row in self._tables.read(view.pin).to_pylist():
            known = held.get(row[view.entity])
            if known is None or row[EVENT_TIMESTAMP] >= known[EVENT_TIMESTAMP]:
                held[row[view.entity]] = row
        self._pins[view.name] = view.pin
        return sum(row != before.get(entity) for entity, row in held.items())

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Drop these entities' values."""
        held = self._online.get(view, {})
        return sum(held.pop(entity, None) is not None for entity in entities)

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those that have values."""
        return sum(entity in self._online.get(view, {}) for entity in entities)

    def online(self, view: ViewTable, entities: Sequence[str]) -> list[dict[str, Any] | None]:
        """Read newest values by entity."""
        held = self._online.get(view.name, {})
        return [{name: held[entity][name] for name in view.kinds} if entity in held else None for entity in entities]

    def historical(self, entities: pa.Table, features: Sequence[Feature], *, views: Sequence[ViewTable], event_time: str) -> pa.Table:
        """Look at every row of the view for every entity row."""
        import pyarrow as pa

        columns: dict[str, pa.Array] = {}
        for view in views:
            rows = self._tables.read(view.pin)
            timelines: dict[str, list[tuple[datetime, int]]] = {}
            for number, (entity, stamp) in enumerate(zip(rows[view.entity].to_pylist(), rows[EVENT_TIMESTAMP].to_pylist(), strict=True)):
                timelines.setdefault(entity, []).append((stamp, number))
            asked = zip(entities[view.entity].cast(pa.string()).to_pylist(), entities[event_time].to_pylist(), strict=True)
            found = [_newest(timelines.get(entity, []), at=at, ttl_seconds=view.ttl_seconds) for entity, at in asked]
            taken = rows.take(pa.array(found, pa.int64()))
            columns.update({feature.name: taken[feature.name] for feature in features if feature.view == view.name})
        return pa.table({feature.name: columns[feature.name] for feature in features})


def _newest(timeline: list[tuple[datetime, int]], *, at: datetime, ttl_seconds: int) -> int | None:
    known = [(stamp, number) for stamp, number in timeline if stamp <= at]
    if not known:
        return None
    stamp, number = max(known)
    return None if ttl_seconds and (at - stamp).total_seconds() > ttl_seconds else number


def _definition(view: ViewTable | None) -> tuple[Any, ...] | None:
    return None if view is None else (view.name, view.entity, view.kinds, view.ttl_seconds, view.pin.table)
