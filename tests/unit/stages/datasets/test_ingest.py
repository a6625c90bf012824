from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest

from platform_assets.errors import DataError
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.stages.datasets.ingest import ingest
from platform_assets.stages.datasets.pictures import draw_target_over_time
from platform_assets.stages.datasets.stream import after, history_end, known_by
from resources.testing.tables import MemoryTableStore

SPEC = DatasetSpec.model_validate(
    {
        "name": "shop",
        "owner": "team:x",
        "source": {"kind": "provided"},
        "key": "id",
        "event_time": "at",
        "label": {"column": "paid", "known_at": "due"},
        "history": "2d",
        "columns": {
            "id": {"type": "string"},
            "at": {"type": "timestamp"},
            "due": {"type": "timestamp"},
            "paid": {"type": "integer", "nullable": True},
        },
    }
)


def day(number):
    return None if number is None else datetime(2024, 1, number)


def table(*rows):
    ids, at, due, paid = zip(*rows, strict=True)
    stamps = pa.timestamp("us")
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "at": pa.array(map(day, at), stamps),
            "due": pa.array(map(day, due), stamps),
            "paid": pa.array(paid, pa.int64()),
        }
    )


class Chunks:
    def __init__(self, *chunks):
        self.chunks = chunks

    def read(self, until):
        return (rows for chunk in self.chunks if (rows := known_by(chunk, spec=SPEC, until=until)).num_rows)


ROWS = table(("a", 1, 2, 1), ("b", 1, 5, 0), ("c", 3, 4, 1), ("d", 6, 7, 0))


def test_an_ingestion_counts_rows_and_reports_chunk_by_chunk():
    store, seen = MemoryTableStore(), []
    done = ingest(SPEC, source=Chunks(ROWS.slice(0, 2), ROWS.slice(2)), store=store, until=None, report=seen.append)
    assert (done.rows_seen, done.rows_new, done.rows_changed, done.pin.rows) == (4, 4, 0, 4)
    assert seen == [2, 4]
    assert done.pin.table == "dataset/shop/ingested"
    assert done.size_bytes > 0


def test_the_same_delivery_again_makes_no_version_and_later_labels_are_changes():
    store = MemoryTableStore()
    first = ingest(SPEC, source=Chunks(ROWS), store=store, until=day(3))
    assert store.read(first.pin)["paid"].to_pylist() == [1, None, None]
    again = ingest(SPEC, source=Chunks(ROWS), store=store, until=day(3))
    assert (again.pin, again.rows_new, again.rows_changed) == (first.pin, 0, 0)
    later = ingest(SPEC, source=Chunks(ROWS), store=store, until=day(5))
    assert (later.rows_new, later.rows_changed, later.as_of) == (0, 2, "2024-01-05T00:00:00")


def test_a_key_that_names_two_events_is_refused_before_rows_are_lost():
    wrong = table(("a", 1, 2, 1), ("a", 2, 3, 0))
    with pytest.raises(DataError, match="1 values of the key id name rows of different at"):
        ingest(SPEC, source=Chunks(wrong), store=MemoryTableStore(), until=None)


def test_a_row_without_a_key_is_refused():
    with pytest.raises(DataError, match="1 rows have no id"):
        ingest(SPEC, source=Chunks(table(("a", 1, 2, 1), (None, 2, 3, 0))), store=MemoryTableStore(), until=None)


def test_a_source_with_nothing_known_yet_says_so():
    with pytest.raises(DataError, match=r"no row by 2023-12-31"):
        ingest(SPEC, source=Chunks(ROWS), store=MemoryTableStore(), until=datetime(2023, 12, 31))


def test_a_label_is_null_until_its_time_and_a_row_without_event_time_is_kept():
    rows = table(("a", 1, 3, 1), ("b", 2, None, 1), ("c", None, 1, 1), ("d", 4, 4, 1))
    known = known_by(rows, spec=SPEC, until=day(3))
    assert known["id"].to_pylist() == ["a", "b", "c"]
    assert known["paid"].to_pylist() == [1, None, 1]
    assert known_by(rows, spec=SPEC, until=None) == rows


def test_history_ends_a_span_after_the_first_known_label_and_live_rows_come_in_order():
    assert history_end(ROWS, spec=SPEC) == day(4)
    assert history_end(ROWS, spec=SPEC.model_copy(update={"history": None})) is None
    live = table(("x", 6, 7, 1), ("y", 5, 9, 0), ("z", 6, 6, 1), ("old", 4, 4, 1))
    assert after(live, spec=SPEC, start=day(4))["id"].to_pylist() == ["y", "x", "z"]


@pytest.mark.parametrize("rows", [ROWS, ROWS.slice(0, 1), ROWS.slice(0, 0), ROWS.set_column(3, "paid", pa.array(["x", None, "y", "x"]))])
def test_the_target_over_time_is_drawn_for_numbers_texts_and_nothing(rows):
    assert draw_target_over_time(rows, spec=SPEC).startswith(b"\x89PNG")
