"""The point-in-time join: ours through Feast's API, Feast's default file store, and a bare ASOF join in DuckDB, on the same rows.

Run as a program it is one contestant; each joins a small table first, so that no import counts. Feast's file store silently drops repeated
(key, event time) pairs and entity rows that are older than all feature rows of their key: the data has neither, and results are asserted
equal. It also multiplies entity rows by the feature rows of their key: two a key is kind to it (ten made it four times slower).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, interleave, judge_row, measured, run_contestant
from resources.settings import silence_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa
    from rich.console import Console

ROWS = 1_000_000
QUICK_ROWS = 50_000
VIEWS = 3
COLUMNS = 5
_ROWS_PER_ENTITY = 2
_SPAN_MICROSECONDS = 90 * 86_400 * 1_000_000
_BEGIN = 1_767_225_600_000_000  # 2026-01-01, microseconds; every key has a feature row before it
_WARM_UP = "warm_up"
_WHOLE = "whole"


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Join 1M entity rows with three views of 1M rows (quick: 50,000); CPU seconds, medians, and the ratios that count."""
    rows = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder / _WARM_UP, rows=rows // 1000)
        write_inputs(folder / _WHOLE, rows=rows)
        console.print(f"point-in-time join, {rows:,} entity rows, {VIEWS} views of {rows:,} rows and {COLUMNS} columns ...")
        runs = {name: partial(run_contestant, __name__, [name, str(folder)]) for name in CONTESTANTS}
        found = interleave(runs, repeats=1 if quick else 3)
        for other in ("file_store", "bare_duckdb"):
            assert_equal(folder, "ours", other)
    cpu = {name: figures["cpu_seconds"] for name, figures in found.items()}
    what = f"point-in-time join through Feast's API, {rows:,} entity rows x {VIEWS} views"
    return [
        *(
            describe_row(f"{what}: {name}, {unit}", value=round(figures[figure], 3), unit="s")
            for name, figures in found.items()
            for unit, figure in (("CPU", "cpu_seconds"), ("wall", "wall_seconds"))
        ),
        judge_row(
            f"{what}: times less CPU", value=round(cpu["file_store"] / cpu["ours"], 2), unit="x", must=5, aim=10, better="higher",
            against="Feast's default file store, equal result",
        ),
        judge_row(
            f"{what}: CPU", value=round(cpu["ours"] / cpu["bare_duckdb"], 3), unit="x", must=1.5, aim=1.2, better="lower",
            against="bare DuckDB ASOF join of the same tables, equal result",
        ),
    ]  # fmt: skip


def write_inputs(folder: Path, *, rows: int) -> None:
    """Write seeded entity rows, and each view as a Delta table and, for the file store, as one Parquet file."""
    import pyarrow.parquet as pq

    from resources.delta_tables import DeltaTableStore

    folder.mkdir(parents=True)
    tables = DeltaTableStore(folder / "tables")
    pq.write_table(_entity_rows(rows), folder / "entities.parquet")
    for number in range(VIEWS):
        view = _view_rows(rows, number=number)
        tables.replace(f"view{number}", view)
        pq.write_table(view, folder / f"view{number}.parquet")


def _entity_rows(rows: int) -> pa.Table:
    import numpy as np

    random = np.random.default_rng(1000)
    return _table(random.integers(0, rows // _ROWS_PER_ENTITY, size=rows), _BEGIN + _spread(rows, random))


def _view_rows(rows: int, *, number: int) -> pa.Table:
    """Each key once before all entity rows, the rest among them, in random order."""
    import numpy as np

    random = np.random.default_rng(number)
    entities = rows // _ROWS_PER_ENTITY
    keys = np.concatenate([np.arange(entities), random.integers(0, entities, size=rows - entities)])
    stamps = np.concatenate([_BEGIN - _SPAN_MICROSECONDS + _spread(entities, random), _BEGIN + _spread(rows - entities, random)])
    order = random.permutation(rows)
    return _table(keys[order], stamps[order], **{f"v{number}_{column}": random.normal(size=rows) for column in range(COLUMNS)})


def _spread(count: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Distinct offsets within the span, in random order."""
    return random.permutation(count) * (_SPAN_MICROSECONDS // count)


def _table(keys: np.ndarray[Any, Any], stamps: np.ndarray[Any, Any], **values: Any) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    names = pa.array(np.char.add("booking-", keys.astype(str)), pa.string())
    return pa.table({"entity": names, "event_timestamp": pa.array(stamps, pa.timestamp("us")), **values})


def join_ours(folder: Path) -> Callable[[], pa.Table]:
    """Prepare Feast over our stores; Arrow goes in and comes out."""
    import pyarrow.parquet as pq

    from platform_assets.specs.records import FeatureKind, ViewTable
    from resources.delta_tables import DeltaTableStore
    from resources.feast_store import FeastFeatureStore

    tables = DeltaTableStore(folder / "tables")
    views = []
    for number in range(VIEWS):
        pin = tables.pin(f"view{number}")
        if pin is None:
            raise FalajError(f"bench: table view{number} is not in {folder}; write the inputs first")
        kinds: dict[str, FeatureKind] = {f"v{number}_{column}": "numeric" for column in range(COLUMNS)}
        views.append(ViewTable(name=f"view{number}", entity="entity", kinds=kinds, pin=pin))
    store = FeastFeatureStore(folder / "feast", tables=tables).open_feast(views)
    entities = pq.read_table(folder / "entities.parquet")
    return lambda: store.get_historical_features(entity_df=entities, features=_references()).to_arrow()


def join_with_the_file_store(folder: Path) -> Callable[[], pa.Table]:
    """Prepare Feast as it comes: file sources, its default offline store; pandas goes in and comes out."""
    import pandas as pd
    import pyarrow as pa
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.repo_config import RegistryConfig
    from feast.types import Float64, String

    config = RepoConfig(
        project="peer", provider="local", registry=RegistryConfig(path=str(folder / "peer.db")), offline_store={"type": "file"},
        online_store={"type": "sqlite", "path": str(folder / "peer_online.db")}, entity_key_serialization_version=3, repo_path=folder,
    )  # fmt: skip
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.STRING)
    views = []
    for number in range(VIEWS):
        source = FileSource(name=f"view{number}", path=str(folder / f"view{number}.parquet"), timestamp_field="event_timestamp")
        fields = [Field(name="entity", dtype=String), *(Field(name=f"v{number}_{column}", dtype=Float64) for column in range(COLUMNS))]
        views.append(FeatureView(name=f"view{number}", entities=[entity], schema=fields, source=source))
    store = FeatureStore(config=config)
    store.apply([entity, *views])
    entities = pd.read_parquet(folder / "entities.parquet")
    join = store.get_historical_features
    return lambda: pa.Table.from_pandas(join(entity_df=entities, features=_references()).to_df(), preserve_index=False)


def join_in_bare_duckdb(folder: Path) -> Callable[[], pa.Table]:
    """Prepare the plain query that someone without Feast would write over the files of the same tables."""
    import duckdb
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

    entities = pq.read_table(folder / "entities.parquet")
    connection = duckdb.connect()
    connection.register("entities", entities)
    files = [DeltaTable(str(folder / "tables" / f"view{number}")).file_uris() for number in range(VIEWS)]
    columns = ", ".join(f"v{number}_{column}" for number in range(VIEWS) for column in range(COLUMNS))
    joins = " ".join(
        f"ASOF LEFT JOIN read_parquet({files[number]!r}) t{number} "
        f"ON e.entity = t{number}.entity AND e.event_timestamp >= t{number}.event_timestamp"
        for number in range(VIEWS)
    )
    query = f"SELECT e.entity, e.event_timestamp, {columns} FROM entities e {joins}"  # noqa: S608 our own names
    return lambda: connection.sql(query).to_arrow_table()


def _references() -> list[str]:
    return [f"view{number}:v{number}_{column}" for number in range(VIEWS) for column in range(COLUMNS)]


CONTESTANTS = {"ours": join_ours, "file_store": join_with_the_file_store, "bare_duckdb": join_in_bare_duckdb}


def assert_equal(folder: Path, one: str, other: str) -> None:
    """Hold two contestants' results of one folder against each other, row by row, exactly."""
    first, second = (_sorted_result(folder, name) for name in (one, other))
    if not first.equals(second):
        raise FalajError(f"bench: {one} and {other} joined the same rows and differ; a figure of speed would mean nothing")


def _sorted_result(folder: Path, name: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = pq.read_table(folder / f"{name}.parquet")
    features = [reference.split(":")[1] for reference in _references()]
    columns = {
        "entity": found["entity"].cast(pa.string()),
        "event_timestamp": found["event_timestamp"].cast(pa.timestamp("us")),
        **{feature: pc.if_else(pc.is_nan(found[feature]), None, found[feature]) for feature in features},
    }
    plain = pa.table(columns).sort_by([("entity", "ascending"), ("event_timestamp", "ascending")])
    return plain.combine_chunks().replace_schema_metadata(None)


def main(arguments: list[str]) -> None:
    """Prepare one contestant, warm it up, measure its join; keep the result beside, print the seconds as JSON."""
    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    prepare = CONTESTANTS[options.contestant]
    silence_telemetry()
    prepare(options.folder / _WARM_UP)()
    join = prepare(options.folder / _WHOLE)
    with measured() as found:
        result = join()
    pq.write_table(result, options.folder / f"{options.contestant}.parquet")
    sys.stdout.write(json.dumps({"cpu_seconds": found.cpu_seconds, "wall_seconds": found.wall_seconds}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
