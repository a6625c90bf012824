"""Arrow streams of named columns, as pyarrow writes them."""

from __future__ import annotations

import http.client
import io
import json
import tracemalloc
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_process import MODEL, Server

from platform_assets.errors import RequestError
from platform_assets.stages.serving.arrow import STREAM, read_stream
from resources.testing.serving import TINY_ROW


def stream(table: pa.Table, *, batch: int = 7) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return sink.getvalue()


@settings(deadline=None)  # the first stream imports nanoarrow
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False), st.none() | st.text(), st.none() | st.booleans(), st.none() | st.integers(-(2**63), 2**63 - 1)
        ),
        min_size=1, max_size=30,
    )
)  # fmt: skip
def test_rows_are_what_was_written(rows):
    types = pa.schema([("a", pa.float64()), ("b", pa.string()), ("c", pa.bool_()), ("d", pa.int64())])
    named = [dict(zip("abcd", row, strict=True)) for row in rows]
    assert read_stream(stream(pa.Table.from_pylist(named, schema=types))) == named


def test_times_dictionaries_and_missing_numbers_come_as_json_would_bring_them():
    table = pa.table({
        "at": pa.array([datetime(2016, 7, 1), None], pa.timestamp("us")), "kind": pa.array(["x", None]).dictionary_encode(),
        "n": pa.array([float("nan"), 1.5], pa.float32()), "image": pa.array([[0.5, 1.0], [0.0, 0.0]], pa.list_(pa.float32())),
    })  # fmt: skip
    assert read_stream(stream(table)) == [
        {"at": "2016-07-01T00:00:00", "kind": "x", "n": None, "image": [0.5, 1.0]},
        {"at": None, "kind": None, "n": 1.5, "image": [0.0, 0.0]},
    ]


@settings(deadline=None)
@given(st.data())
def test_what_is_no_stream_is_refused_in_a_sentence(data):
    whole = stream(pa.table({"a": [1.0, 2.0]}))
    cut = whole[: data.draw(st.integers(0, len(whole) - 20))] if data.draw(st.booleans()) else data.draw(st.binary(max_size=200))
    with pytest.raises(RequestError, match="Arrow"):
        read_stream(cut)


def grown(table: pa.Table, *, codec: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def overlapping(count: int, size: int) -> pa.Table:
    """Texts whose offsets go back and forth over the same characters."""
    offsets = np.zeros(2 * count + 1, np.int32)
    offsets[1::2] = size
    texts = pa.Array.from_buffers(pa.string(), 2 * count, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"x" * size)])
    return pa.table({"a": texts})


@pytest.mark.parametrize(
    ("why", "bomb"),
    [
        ("compressed", lambda: grown(pa.table({"a": pa.array(np.zeros(9_000_000))}), codec="zstd")),
        ("compressed", lambda: grown(pa.table({"a": pa.array(["x" * 9_000_000])}), codec="lz4")),
        ("compressed", lambda: grown(pa.table({"a": pa.array(["x" * 9_000_000]).dictionary_encode()}), codec="zstd")),
        ("rows", lambda: grown(pa.table({"a": pa.nulls(2**31 - 1)}))),
        ("type null", lambda: grown(pa.table({"a": pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), pa.nulls(2**31 - 1))}))),
        ("type struct", lambda: grown(pa.table({"a": [{"b": 1}]}))),
        ("Arrow", lambda: grown(overlapping(4000, 4 << 20))),
    ],
)
def test_a_few_bytes_never_become_gigabytes(why, bomb):
    body = bomb()
    assert len(body) < 5 << 20
    tracemalloc.start()
    with pytest.raises(RequestError, match=why):
        read_stream(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80 << 20


def ask(server: Server, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    connection.request("POST", f"/v1/models/{MODEL}:predict", body=body, headers={"content-type": STREAM.decode()})
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def test_a_stream_is_answered_as_json_is_and_logged_row_by_row(live):
    rows = [{**TINY_ROW, "booking_id": f"b{at}", "lead_time": at} for at in range(20)]
    with live.client() as client:
        named = client.predict(MODEL, rows)["predictions"]
    status, body = ask(live, stream(pa.Table.from_pylist(rows)))
    assert status == 200
    assert json.loads(body)["predictions"] == named
    wrong = stream(pa.table({"nope": [1]}))
    assert ask(live, wrong)[0] == 400
    lines = [json.loads(line) for file in live.target.rotate_log(MODEL) for line in file.read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"b{at}" for at in range(20)] * 2


def test_who_accepts_a_stream_gets_its_answers_as_one_whatever_the_rows_came_as(live):
    rows = [{**TINY_ROW, "lead_time": at} for at in range(20)]
    with live.client() as client:
        named = client.predict(MODEL, rows)["predictions"]
        version = client.request("GET", f"/v2/models/{MODEL}")["versions"][0]
    as_stream = {"content-type": STREAM.decode()}
    for body, headers in ((json.dumps({"rows": rows}), {}), (stream(pa.Table.from_pylist(rows)), as_stream)):
        connection = http.client.HTTPConnection(*live.address, timeout=10)
        connection.request("POST", f"/v1/models/{MODEL}:predict", body=body, headers={**headers, "accept": f"{STREAM.decode()}, */*"})
        reply = connection.getresponse()
        assert reply.status == 200
        assert (reply.headers["content-type"], reply.headers["x-model-version"]) == (STREAM.decode(), version)
        found = pa.ipc.open_stream(reply.read()).read_all().to_pylist()
        assert [(one["label"], one["probability"]) for one in found] == [
            (one["label"], pytest.approx(one["probability"], abs=1e-7)) for one in named
        ]
        classes = named[0]["probabilities"]
        assert [{name: one[f"probability_{name}"] for name in classes} for one in found] == [
            pytest.approx(one["probabilities"], abs=1e-7) for one in named
        ]
        connection.request("POST", f"/v1/models/{MODEL}:predict", body=b"{", headers={"accept": STREAM.decode()})
        refused = connection.getresponse()
        assert refused.status == 400
        assert "JSON" in json.loads(refused.read())["error"]
        connection.close()
