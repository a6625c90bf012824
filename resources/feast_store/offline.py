"""Feast's offline store over Delta: point-in-time joins in Arrow and numpy. Feast loads this module by its dotted path.

The join (`asof`) runs on keys and times alone and answers with row numbers; values are then taken by Arrow, so every type comes through
unchanged and wide columns (images) never enter the join. Every entity row is kept, in order, repeats included: Feast's dask store drops
repeats.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.repo_config import FeastConfigBaseModel
from feast.utils import to_naive_utc

from resources.feast_store.asof import STAMP, Timeline, newest_not_after, newest_of_each
from resources.feast_store.source import DeltaSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

_EVENT = "event_timestamp"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 all times here are naive UTC


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """Nothing to set: a source says where and which version it is."""

    type: Literal["resources.feast_store.offline.DeltaOfflineStore"] = "resources.feast_store.offline.DeltaOfflineStore"


class DeltaRetrievalJob(RetrievalJob):
    """A query that runs when its result is asked for."""

    def __init__(self, run: Callable[[], pa.Table], *, full_feature_names: bool = False, metadata: RetrievalMetadata | None = None) -> None:
        self._run = run
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """No transformation happens at retrieval: features are computed in the lineage graph."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Features and keys of the request."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 Feast's signature
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout=timeout).to_pandas()


class DeltaOfflineStore(OfflineStore):
    """Reads `DeltaSource`s at their pinned versions."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 Feast calls by position
        config: RepoConfig,  # noqa: ARG004 Feast's signature
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | None,
        registry: BaseRegistry,  # noqa: ARG004
        project: str,  # noqa: ARG004
        full_feature_names: bool = False,  # noqa: FBT001, FBT002
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Per entity row the newest values not after its event time and not older than the view's ttl.

        `entity_df` is pandas or Arrow. None: one row an entity seen from `start_date` to `end_date`, as of `end_date`; the views then share
        their keys.
        """
        since = to_naive_utc(start_date) if start_date else _EPOCH
        entities = _entity_rows(feature_views, since=since, until=end_date) if entity_df is None else _as_arrow(entity_df)
        event_column = _event_column(entities)
        metadata = RetrievalMetadata(features=feature_refs, keys=[name for name in entities.column_names if name != event_column])

        def run() -> pa.Table:
            result, timelines = entities, dict[tuple[str, ...], Timeline]()
            for view in feature_views:
                keys = tuple(_join_keys(view).values())
                if keys not in timelines:
                    timelines[keys] = _entity_timeline(entities, keys, view=view, event_column=event_column)
                prefix = view.projection.name_to_use()
                wanted = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == prefix]
                values = _join(timelines[keys], view=view, wanted=wanted, since=since if entity_df is None else None)
                for name in wanted:
                    result = result.append_column(f"{prefix}__{name}" if full_feature_names else name, values[name])
            return result

        return DeltaRetrievalJob(run, full_feature_names=full_feature_names, metadata=metadata)

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0917
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Newest row an entity, from `start_date` to `end_date`, both included."""
        everything = DeltaOfflineStore.pull_all_from_table_or_query(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column, start_date, end_date
        )

        def run() -> pa.Table:
            rows = everything.to_arrow()
            return rows.take(
                newest_of_each(_timeline(rows, join_key_columns, timestamp_field=timestamp_field, created=created_timestamp_column))
            )

        return DeltaRetrievalJob(run)

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0917
        config: RepoConfig,  # noqa: ARG004 Feast's signature
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows from `start_date` to `end_date`, both included; an end left out is open."""

        def run() -> pa.Table:
            created = [created_timestamp_column] if created_timestamp_column else []
            rows = _delta(data_source).read([*join_key_columns, *feature_name_columns, timestamp_field, *created])
            stamps = _stamps(rows[timestamp_field])
            if start_date is not None:
                kept = pc.greater_equal(stamps, pa.scalar(to_naive_utc(start_date), STAMP))
                rows, stamps = rows.filter(kept), stamps.filter(kept)
            return rows if end_date is None else rows.filter(pc.less_equal(stamps, pa.scalar(to_naive_utc(end_date), STAMP)))

        return DeltaRetrievalJob(run)


def _delta(source: DataSource | None) -> DeltaSource:
    if not isinstance(source, DeltaSource):
        raise TypeError(f"this offline store reads Delta sources; found {type(source).__name__}")
    return source


def _as_arrow(entity_df: pd.DataFrame | pa.Table) -> pa.Table:
    if isinstance(entity_df, str):
        raise TypeError("entity rows as an SQL query were asked for; this offline store takes a pandas or Arrow table")
    return entity_df if isinstance(entity_df, pa.Table) else pa.Table.from_pandas(entity_df, preserve_index=False)


def _event_column(entities: pa.Table) -> str:
    if _EVENT in entities.column_names:
        return _EVENT
    stamps = [field.name for field in entities.schema if pa.types.is_timestamp(field.type)]
    if len(stamps) != 1:
        raise ValueError(f"entity rows need a column {_EVENT!r}, or exactly one timestamp column; found {stamps or 'none'}")
    return stamps[0]


def _join_keys(view: FeatureView) -> dict[str, str]:
    """Column of the view's table to the entity rows' column."""
    renamed = view.projection.join_key_map
    return {column.name: renamed.get(column.name, column.name) for column in view.entity_columns}


def _entity_timeline(entities: pa.Table, keys: Sequence[str], *, view: FeatureView, event_column: str) -> Timeline:
    missing = [name for name in keys if name not in entities.column_names]
    if missing:
        raise ValueError(f"view {view.name} is joined by {', '.join(missing)}, which the entity rows do not have")
    return _timeline(entities, keys, timestamp_field=event_column)


def _join(moments: Timeline, *, view: FeatureView, wanted: Sequence[str], since: datetime | None) -> pa.Table:
    source, keys = _delta(view.batch_source), _join_keys(view)
    created = source.created_timestamp_column or None
    rows = source.read([*keys, *wanted, source.timestamp_field, *([created] if created else [])])
    if since is not None:
        rows = rows.filter(pc.greater_equal(_stamps(rows[source.timestamp_field]), pa.scalar(since, STAMP)))
    timeline = _timeline(rows, keys, timestamp_field=source.timestamp_field, created=created)
    ttl = int((view.ttl or timedelta()) / timedelta(microseconds=1))
    return rows.select(list(wanted)).take(newest_not_after(moments, timeline, ttl_microseconds=ttl))


def _entity_rows(views: Sequence[FeatureView], *, since: datetime, until: datetime | None) -> pa.Table:
    keys = {tuple(_join_keys(view)) for view in views}
    if len(keys) != 1 or until is None:
        raise ValueError("without entity rows, the views must share their keys and an end date is needed; give entity rows instead")
    columns, end = list(keys.pop()), pa.scalar(to_naive_utc(until), STAMP)
    seen = []
    for view in views:
        source = _delta(view.batch_source)
        rows = source.read([*columns, source.timestamp_field])
        stamps = _stamps(rows[source.timestamp_field])
        inside = pc.and_(pc.greater_equal(stamps, pa.scalar(since, STAMP)), pc.less_equal(stamps, end))
        seen.append(rows.filter(inside).select(columns))
    distinct = pa.concat_tables(seen).group_by(columns).aggregate([]).sort_by([(column, "ascending") for column in columns])
    return distinct.append_column(_EVENT, pa.repeat(end, distinct.num_rows))


def _timeline(rows: pa.Table, keys: Iterable[str], *, timestamp_field: str, created: str | None = None) -> Timeline:
    return Timeline([rows[key] for key in keys], rows[timestamp_field], rows[created] if created else None)


def _stamps(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(STAMP)  # a zone is dropped, the UTC instant stays
