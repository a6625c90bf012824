"""Fills features of other entities from the online store, where the caller did not give them.

The stores' layouts are online.py's and online_redis.py's.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from platform_assets.logs import event
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.columns import as_time
from platform_assets.stages.serving.online import OnlineReader
from platform_assets.stages.serving.online_redis import RedisOnlineReader, RedisPlace

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.stages.serving.online import NewestValues


def open_reader(place: Path | RedisPlace | None) -> NewestValues | None:
    """Return what reads newest values there. Nothing is connected yet."""
    if place is None:
        return None
    return RedisOnlineReader(place) if isinstance(place, RedisPlace) else OnlineReader(place)


class Lookup:
    """Online features of requests; a store that cannot be read leaves them missing, and is counted."""

    def __init__(self, reader: NewestValues | None) -> None:
        self._reader = reader
        self._plans: dict[int, tuple[FeatureSchema, list[tuple[str, str, tuple[Feature, ...]]]]] = {}
        self.missed_rows = 0
        self.read_errors = 0
        self._away = False

    def lacks(self, rows: Sequence[dict[str, Any]], *, schema: FeatureSchema) -> bool:
        """Whether a row lacks a feature that the store may have."""
        if self._reader is None or not schema.online:
            return False
        return any(_lacks(row, features) for _, _, features in self._plan(schema) for row in rows)

    def fill(self, rows: Sequence[dict[str, Any]], *, schema: FeatureSchema) -> None:
        """Add the missing features of other entities to the rows, in place."""
        if self._reader is None or not schema.online:
            return
        for view, entity, features in self._plan(schema):
            asked = [row for row in rows if _lacks(row, features) and isinstance(row.get(entity), str)]
            if asked:
                self._fill_view(asked, view=view, entity=entity, features=features)

    def _fill_view(self, rows: list[dict[str, Any]], *, view: str, entity: str, features: tuple[Feature, ...]) -> None:
        assert self._reader is not None
        try:
            found = self._reader.read_many(view, [row[entity] for row in rows])
        except (sqlite3.Error, StateError) as error:
            if not self._away:
                event(f"looked-up features are missing from now on: {error}", level=logging.WARNING)
            self._away = True
            self.read_errors += 1
            self.missed_rows += len(rows)
            return
        if self._away:
            event("looked-up features are there again")
        self._away = False
        for row, values in zip(rows, found, strict=True):
            if values is None:
                self.missed_rows += 1
                continue
            for feature in features:
                if feature.name not in row:
                    row[feature.name] = _as_given(values.get(feature.name), feature)

    def _plan(self, schema: FeatureSchema) -> list[tuple[str, str, tuple[Feature, ...]]]:
        # By identity: hashing a schema of many features costs more than the lookup. The schema is kept so that its id stays its own.
        kept = self._plans.get(id(schema))
        if kept is None:
            views: dict[tuple[str, str], list[Feature]] = {}
            for feature in schema.features:
                if feature.entity != schema.key:
                    views.setdefault((feature.view, feature.entity), []).append(feature)
            kept = (schema, [(view, entity, tuple(features)) for (view, entity), features in views.items()])
            if len(self._plans) > 64:  # noqa: PLR2004 - far more than stay loaded
                self._plans.clear()
            self._plans[id(schema)] = kept
        return kept[1]


def _lacks(row: Any, features: tuple[Feature, ...]) -> bool:
    return type(row) is dict and any(feature.name not in row for feature in features)


def _as_given(value: Any, feature: Feature) -> Any:
    """As a caller would have sent it, so that one path validates and logs both."""
    if value is None:
        return None
    if feature.kind == "date":
        return as_time(value)
    return list(value) if feature.kind == "image" else value
