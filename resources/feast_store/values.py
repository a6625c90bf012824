"""Where the newest values of feature views are kept, and how they are written in bulk: one shape over a SQLite file and a Redis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from platform_assets.stages.features.schema import EVENT_TIMESTAMP
from platform_assets.stages.serving.online import FILE_NAME
from platform_assets.stages.serving.online_redis import RedisPlace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa

    from platform_assets.specs.records import ViewTable
    from platform_assets.stages.serving.online import NewestValues
    from resources.settings import Settings


class OnlineValues(Protocol):
    """Newest values, an entity a row. Rows are (entity, event in microseconds since 1970-01-01, features as the layout stores them)."""

    def pin(self, view: str) -> str | None:
        """Return the pin that a view's values stand at, as JSON; None where none were written to the end."""

    def ensure(self, view: str, *, kinds: Mapping[str, str]) -> None:
        """Make room for a view; one with other features or kinds is begun anew, empty."""

    def write_view(self, view: ViewTable, rows: pa.Table) -> int:
        """Write the newest row of each entity, then the pin; return how many entities changed. Late rows change nothing."""

    def upsert(self, view: str, *, kinds: Mapping[str, str], rows: Iterable[tuple[Any, ...]]) -> int:
        """Write rows, making room for the view; one that is older than what is there, or equal to it, is not written."""

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those of these entities that have values."""

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Delete the rows of these entities; return how many there were."""

    def drop(self, view: str) -> None:
        """Remove a view's values."""

    def reader(self) -> NewestValues:
        """Return what the inference server reads them with."""


def open_values(place: Path | RedisPlace) -> OnlineValues:
    """Open the values in a SQLite file, or in a Redis. Nothing is connected yet."""
    if isinstance(place, RedisPlace):
        from resources.feast_store.redis_values import RedisValues

        return RedisValues(place)
    from resources.feast_store.bulk import SqliteValues

    return SqliteValues(place)


def place_of(settings: Settings) -> Path | RedisPlace:
    """Return where newest values are: a team's Redis, or the home's file."""
    if settings.team is None:
        return settings.home.feast / FILE_NAME
    server = settings.team.redis
    return RedisPlace(server.url, server.password_file, server.ca, server.certificate, server.key)


def newest_of(rows: pa.Table, view: ViewTable) -> pa.Table:
    """Return rows, one an entity; of equal event times the later row."""
    return rows.take(_newest_by_entity(rows, view.entity))


def _newest_by_entity(rows: pa.Table, entity: str) -> np.ndarray[Any, Any]:
    import numpy as np
    import pyarrow as pa

    codes = rows[entity].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((rows[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(), codes))
    last = np.append(codes[order][1:] != codes[order][:-1], True) if len(order) else np.empty(0, bool)
    return order[last]


def as_stored(column: pa.ChunkedArray, kind: str) -> list[Any]:
    """Return plain values: numbers (missing NaN), dates in microseconds, images as bytes of float32, texts."""
    import pyarrow as pa

    if kind == "numeric":
        return column.to_numpy().tolist()
    if kind == "date":
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    if kind == "image":
        return [None if value is None else _float_bytes(value) for value in column.to_pylist()]
    return column.to_pylist()


def _float_bytes(values: list[float]) -> bytes:
    from array import array

    return array("f", values).tobytes()
