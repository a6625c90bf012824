from __future__ import annotations

import gzip
import tracemalloc
from datetime import datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyarrow import csv

from platform_assets.errors import DataError, SourceError
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.dataset import DatasetSpec, SimulatorSource
from platform_assets.stages.datasets.ingest import ingest
from platform_assets.stages.datasets.simulator import simulate
from platform_assets.stages.validation.contract import validate
from resources.file_reader import read_files
from resources.sources import live_rows, open_source, stream_start
from resources.testing.tables import MemoryTableStore

DEFS = Path(__file__).parents[3] / "platform_assets" / "defs"
SMALL = SimulatorSource(kind="simulator", history_rows=300, live_rows=200, drift_after_rows=80)
BOOKINGS = simulate(SMALL)


@pytest.fixture(scope="module")
def hotels():
    """The shipped datasets, alone in a catalogue."""
    return load_catalogue(DEFS / "datasets").datasets


@pytest.fixture
def spec(hotels):
    return hotels["hotel_bookings"]


def whole(source, until=None):
    return pa.concat_tables(list(source.read(until)))


def delivered(spec):
    return BOOKINGS.select(list(spec.columns))


def write(kind, folder, rows):
    """Write rows in one of the ways a user brings them; return the path or URL."""
    folder.mkdir(exist_ok=True)
    path = folder / f"rows.{kind}"
    if kind == "csv":
        csv.write_csv(rows, path)
    elif kind == "csv.gz":
        csv.write_csv(rows, folder / "plain.csv")
        path.write_bytes(gzip.compress((folder / "plain.csv").read_bytes()))
    elif kind == "parquet":
        pq.write_table(rows, path)
    elif kind == "delta":
        write_deltalake(path, rows)
    elif kind == "folder":
        path.mkdir()
        pq.write_table(rows.slice(0, 200), path / "2023.parquet")
        pq.write_table(rows.slice(200), path / "2024.parquet")
        (path / "_SUCCESS").touch()
    elif kind == "memory":
        with fsspec.open(f"memory://{folder.name}/rows.parquet", "wb") as handle:
            pq.write_table(rows, handle)
        return f"memory://{folder.name}/rows.parquet"
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "delta", "folder", "memory"])
def test_every_kind_of_file_gives_the_same_rows(kind, spec, tmp_path):
    rows = whole(open_source(spec, provided=write(kind, tmp_path / "a folder", delivered(spec))))
    assert rows.sort_by("booking_id") == delivered(spec).sort_by("booking_id")


@pytest.mark.parametrize("query", ["select * from bookings", "select * from bookings where 1 = 0"])
def test_a_query_gives_the_same_rows_or_says_there_are_none(query, spec, tmp_path):
    import sqlalchemy

    url = f"sqlite:///{tmp_path}/hotel.sqlite"
    delivered(spec).to_pandas().to_sql("bookings", sqlalchemy.create_engine(url), index=False)
    (tmp_path / "url").write_text(url + "\n")
    sql = DatasetSpec.model_validate({**spec.model_dump(), "source": {"kind": "sql", "url_file": str(tmp_path / "url"), "query": query}})
    if "where" in query:
        with pytest.raises(SourceError, match="holds no rows"):
            whole(open_source(sql, provided=None))
    else:
        assert whole(open_source(sql, provided=None)) == delivered(spec)


def test_sql_failures_are_sentences_without_the_password(spec, tmp_path):
    def source(text, query="select 1"):
        (tmp_path / "url").write_text(text)
        return open_source(
            DatasetSpec.model_validate({**spec.model_dump(), "source": {"kind": "sql", "url_file": str(tmp_path / "url"), "query": query}}),
            provided=None,
        )

    with pytest.raises(SourceError, match="is empty"):
        source("")
    with pytest.raises(SourceError, match="not one SQLAlchemy can open") as told:
        whole(source("nonsense://user:hush@host/db"))
    assert "hush" not in str(told.value)
    with pytest.raises(SourceError, match="no such table: nowhere"):
        whole(source("sqlite://", "select * from nowhere"))
    missing = DatasetSpec.model_validate({**spec.model_dump(), "source": {"kind": "sql", "url_file": str(tmp_path / "gone"), "query": "x"}})
    with pytest.raises(SourceError, match="gone cannot be read"):
        open_source(missing, provided=None)


@pytest.mark.parametrize("first", [b"", b"booking_id,hotel\n"])
def test_a_compressed_file_of_gigabytes_in_one_line_is_refused_early(tmp_path, first):
    member = gzip.compress(bytes(1 << 20))
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(first) + member * 4096)  # 4 MB that would be 4 GB
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"bomb\.csv\.gz is not a CSV file that can be read"):
        list(read_files(str(tmp_path / "bomb.csv.gz"), format_=None, columns=["booking_id"], key="booking_id"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 128 << 20


def test_a_source_without_the_key_gets_one_that_survives_reordering(spec, tmp_path):
    rows = delivered(spec).drop_columns(["booking_id"])
    doubled = pa.concat_tables([rows, rows.slice(0, 5)])
    first = whole(open_source(spec, provided=write("parquet", tmp_path / "one", doubled)))
    turned = doubled.take(pa.array(range(doubled.num_rows - 1, -1, -1)))
    second = whole(open_source(spec, provided=write("parquet", tmp_path / "two", turned)))
    assert len(set(first["booking_id"].to_pylist())) == doubled.num_rows
    assert first.sort_by("booking_id") == second.sort_by("booking_id")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.csv", b"", "is empty; a CSV file needs a first line"),
        ("rows.csv", b"a,b\n1,2\n", "lacks columns booking_date, .*; it has a, b"),
        ("rows.csv", b"a,b\n1,2,3\n", "not a CSV file"),
        ("rows.parquet", b"", "not a Parquet file"),
        ("rows.parquet", b"PAR1 or not", "not a Parquet file"),
        ("rows.xlsx", b"x", "format of source .* is not told by its ending"),
    ],
)
def test_a_bad_file_is_one_clear_sentence(name, content, sentence, spec, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as told:
        whole(open_source(spec, provided=str(tmp_path / name)))
    assert name in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("/nowhere/rows.csv", "does not exist"), ("nosuch://bucket/rows.csv", "cannot be read"), ("/", "is not told by its ending")],
)
def test_a_bad_path_is_one_clear_sentence(path, sentence, spec, tmp_path):
    path = str(tmp_path) if path == "/" else path
    with pytest.raises(SourceError, match=sentence):
        whole(open_source(spec, provided=path))


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta"])
def test_a_misnamed_column_is_shown_beside_the_one_that_is_asked(kind, spec, tmp_path):
    rows = delivered(spec)
    renamed = rows.rename_columns(["is_cancelled" if name == "is_canceled" else name for name in rows.column_names])
    with pytest.raises(SourceError, match=r"lacks column is_canceled; it has .*is_cancelled"):
        whole(open_source(spec, provided=write(kind, tmp_path / "d", renamed)))


def test_a_csv_value_may_hold_a_line_break(spec, tmp_path):
    rows = delivered(spec)
    odd = rows.set_column(rows.column_names.index("agent"), "agent", pa.array(['two\nlines, "quoted"'] * rows.num_rows))
    assert whole(open_source(spec, provided=write("csv", tmp_path / "d", odd))) == odd


def test_a_header_without_rows_is_refused(spec, tmp_path):
    path = write("csv", tmp_path / "d", delivered(spec).slice(0, 0))
    with pytest.raises(SourceError, match="holds no rows"):
        whole(open_source(spec, provided=path))


def test_a_wrong_value_names_the_file_and_the_column(spec, tmp_path):
    rows = delivered(spec)
    wrong = rows.set_column(rows.column_names.index("lead_time"), "lead_time", pa.array(["soon"] * rows.num_rows))
    with pytest.raises(DataError, match=r"rows.csv: column lead_time is declared integer, .*soon"):
        whole(open_source(spec, provided=write("csv", tmp_path / "d", wrong)))


def test_a_dataset_to_be_provided_says_how(spec):
    with pytest.raises(SourceError, match="falaj run --source hotel_bookings=PATH"):
        open_source(spec, provided=None)


def test_the_simulated_stream_ends_its_history_where_its_live_rows_begin(hotels):
    spec = hotels["hotel_bookings_simulated"].model_copy(update={"source": SMALL})
    source = open_source(spec, provided=None)
    start = stream_start(spec, source)
    assert start == datetime(2024, 1, 1)
    history, live = whole(source, until=start), live_rows(spec, source)
    assert (history.num_rows, live.num_rows) == (300, 200)
    assert live["is_canceled"].null_count == 0
    unknown = pc.greater(history["arrival_date"], pa.scalar(start))
    assert 0 < history["is_canceled"].null_count == pc.sum(unknown).as_py()


def test_the_first_digits_are_history_and_the_rest_come_live(hotels):
    spec = hotels["digits"]
    source = open_source(spec, provided=None)
    rows = whole(source)
    assert stream_start(spec, source) == rows["seen_at"][0].as_py() + timedelta(hours=26)
    assert live_rows(spec, source).num_rows == 1_797 - (26 * 60 + 1)
    assert rows.num_rows == 1_797
    assert set(rows["digit"].to_pylist()) == set("0123456789")
    assert rows["seen_at"][1].as_py() - rows["seen_at"][0].as_py() == timedelta(minutes=1)
    assert validate(spec, rows, previous_rows=None, now=datetime(2026, 1, 1)).good


@pytest.mark.real_data
def test_the_real_hotels_are_ingested_whole_and_fulfil_their_contract(spec, real_hotels):
    source = open_source(spec, provided=str(real_hotels))
    start = stream_start(spec, source)
    assert start == datetime(2016, 6, 30)
    store = MemoryTableStore()
    history = ingest(spec, source=source, store=store, until=start)
    everything = ingest(spec, source=source, store=store, until=None)
    live = live_rows(spec, source)
    assert everything.pin.rows == 119_390
    assert history.pin.rows + live.num_rows == 119_390
    assert live["booking_date"].to_pylist() == sorted(live["booking_date"].to_pylist())
    verdict = validate(spec, store.read(everything.pin), previous_rows=history.pin.rows, now=datetime(2017, 9, 1))
    assert verdict.good, verdict.sentence
    assert len(verdict.offending_keys) == 16
