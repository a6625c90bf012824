"""`falaj predict` answers a file as the server would, in bounded memory, and its output is whole or not there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from platform_assets.errors import DataError, FalajError, ReleaseError, SourceError, SpecError
from platform_assets.main_job.scoring import predict_file, predict_rows
from platform_assets.stages.serving.columns import RowReader
from resources.settings import child_environment
from resources.testing.released import MODEL, release, write_released_home
from resources.testing.serving import TINY_SCHEMA, _tiny_graph

GRAPH = _tiny_graph(seed=1, breaks_at=None)


@pytest.fixture
def settings(tmp_path):
    return write_released_home(tmp_path, schema=TINY_SCHEMA, graph=GRAPH)


def rows(count):
    random = np.random.default_rng(1)
    segments = np.array(["Online TA", "Direct", "never seen", None], object)[random.integers(0, 4, count)]
    return pa.table({
        "booking_id": [f"b{at}" for at in range(count)],
        "lead_time": pa.array([None if at % 7 == 0 else float(at) for at in range(count)]),
        "adr": random.uniform(20, 300, count),
        "arrival_date": pa.array([datetime(2016, 7, 1) + timedelta(hours=at) for at in range(count)], pa.timestamp("us")),
        "market_segment": pa.array(segments.tolist(), pa.string()),
        "mean_adr_90d": random.uniform(50, 150, count),
        "noise": ["not read"] * count,
    })  # fmt: skip


def as_served(table):
    """Probabilities as the inference server reads the same rows."""
    asked = [{name: value for name, value in row.items() if name != "noise"} for row in table.to_pylist()]
    for row in asked:
        row["arrival_date"] = row["arrival_date"].isoformat()
    batch = RowReader(TINY_SCHEMA, model=MODEL).encode(asked)
    return ort.InferenceSession(GRAPH, providers=["CPUExecutionProvider"]).run(None, batch.tensors())[0]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("answers", ["parquet", "csv"])
def test_a_file_is_answered_as_the_server_would(settings, tmp_path, ending, answers):
    table = rows(300)
    file, out = tmp_path / f"rows.{ending}", tmp_path / f"answers.{answers}"
    pq.write_table(table, file, row_group_size=70) if ending == "parquet" else pc.write_csv(table, file)
    done = predict_file(settings, MODEL, file, out=out)
    found = pq.read_table(out) if answers == "parquet" else pc.read_csv(out)
    expected = as_served(table)
    assert done.rows == 300
    assert found.column_names == ["booking_id", "label", "probability", "probability_0", "probability_1"]
    assert found["booking_id"].to_pylist() == table["booking_id"].to_pylist()
    np.testing.assert_allclose(np.column_stack([found["probability_0"], found["probability_1"]]), expected, atol=1e-6)
    assert [str(label) for label in found["label"].to_pylist()] == [str(best) for best in expected.argmax(axis=1)]
    np.testing.assert_allclose(found["probability"], expected.max(axis=1), atol=1e-6)


def test_without_a_file_for_them_answers_come_one_by_one(settings, tmp_path):
    pq.write_table(rows(3), tmp_path / "rows.parquet")
    found = list(predict_rows(settings, MODEL, tmp_path / "rows.parquet"))
    assert [one["booking_id"] for one in found] == ["b0", "b1", "b2"]
    assert found[0]["probability"] == pytest.approx(found[0]["probabilities"][found[0]["label"]])


def test_features_of_other_entities_are_looked_up_where_the_file_lacks_them(settings, tmp_path):
    table = rows(50)
    settings.home.feast.mkdir(parents=True)
    with sqlite3.connect(settings.home.feast / "online.sqlite") as store:
        store.execute("CREATE TABLE market_demand (__entity TEXT PRIMARY KEY, __event_us INTEGER, mean_adr_90d REAL)")
        store.execute("INSERT INTO market_demand VALUES ('Direct', 0, 123.5)")
    pq.write_table(table.drop_columns(["mean_adr_90d"]), tmp_path / "rows.parquet")
    predict_file(settings, MODEL, tmp_path / "rows.parquet", out=tmp_path / "out.parquet")
    known = pa.array([123.5 if segment == "Direct" else None for segment in table["market_segment"].to_pylist()])
    expected = as_served(table.set_column(table.column_names.index("mean_adr_90d"), "mean_adr_90d", known))
    np.testing.assert_allclose(pq.read_table(tmp_path / "out.parquet")["probability_1"], expected[:, 1], atol=1e-6)


def test_a_version_may_be_named_and_the_live_one_is_meant_otherwise(settings, tmp_path):
    pq.write_table(rows(3), tmp_path / "rows.parquet")
    (old,) = {one["version"] for one in predict_rows(settings, MODEL, tmp_path / "rows.parquet")}
    new = release(settings, schema=TINY_SCHEMA, graph=_tiny_graph(seed=2, breaks_at=None))[:12]
    assert {one["version"] for one in predict_rows(settings, MODEL, tmp_path / "rows.parquet")} == {new}
    assert {one["version"] for one in predict_rows(settings, MODEL, tmp_path / "rows.parquet", version=old)} == {old}
    with pytest.raises(ReleaseError, match=f"has no release 123; releases: {old}, {new}"):
        list(predict_rows(settings, MODEL, tmp_path / "rows.parquet", version="123"))


def with_bad_value(table):
    return table.set_column(1, "lead_time", pa.array(["long"] * table.num_rows))


@pytest.mark.parametrize(
    ("asked", "table", "error", "said"),
    [
        (("nobody", "rows.parquet", "o.csv"), rows(3), SpecError, "no model of this name; declared: given"),
        ((MODEL, "absent.parquet", "o.csv"), None, SourceError, "there is no file .*absent.parquet"),
        ((MODEL, "rows.txt", "o.csv"), rows(3), SourceError, "neither CSV nor Parquet by its ending"),
        ((MODEL, "rows.parquet", "o.csv"), rows(3).drop_columns(["adr", "lead_time"]), SourceError, "lacks columns lead_time, adr, which the model reads; it has booking_id"),
        ((MODEL, "rows.parquet", "o.csv"), rows(3).drop_columns(["market_segment", "mean_adr_90d"]), SourceError, "lacks column market_segment, which"),
        ((MODEL, "rows.parquet", "o.csv"), with_bad_value(rows(3)), DataError, "column lead_time is declared number, found string that does not fit"),
        ((MODEL, "rows.parquet", "o.txt"), rows(3), SourceError, "--out .*o.txt is neither CSV nor Parquet"),
        ((MODEL, "rows.parquet", "none/o.csv"), rows(3), SourceError, "there is no folder .*none; make it first"),
        ((MODEL, "rows.parquet", "o.csv"), rows(0), SourceError, "there are no rows to write"),
        ((MODEL, "torn.parquet", "o.csv"), None, SourceError, "torn.parquet cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_and_the_answers_of_before_stay(settings, tmp_path, asked, table, error, said):  # noqa: PLR0917 - pytest's
    model, name, out = asked
    file, to = tmp_path / name, tmp_path / out
    if table is not None:
        pq.write_table(table, file)
    if name == "torn.parquet":
        file.write_bytes(b"PAR1 and no more")
    if to.parent.exists():
        to.write_text("of before")
    with pytest.raises(error, match=said) as found:
        predict_file(settings, model, file, out=to)
    assert "\n" not in str(found.value) or error is SpecError
    assert not to.parent.exists() or [path.name for path in tmp_path.iterdir() if "o." in path.name] == [to.name]
    assert not to.parent.exists() or to.read_text() == "of before"


def test_a_fault_in_a_late_row_leaves_the_answers_of_before(settings, tmp_path):
    table = rows(5000)
    texts = ["1"] * 4999 + ["long"]
    pc.write_csv(table.set_column(1, "lead_time", pa.array(texts)), tmp_path / "rows.csv")
    (tmp_path / "out.csv").write_text("of before")
    with pytest.raises(DataError, match="column lead_time"):
        predict_file(settings, MODEL, tmp_path / "rows.csv", out=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "of before"
    assert not list(tmp_path.glob(".out*"))


def test_the_command_killed_half_way_leaves_the_answers_of_before_and_loads_neither_dagster_nor_pandas(settings, tmp_path):
    command = [sys.executable, "-m", "platform_assets.cli", "predict", MODEL, "--file", str(tmp_path / "rows.parquet")]
    out = tmp_path / "out.parquet"
    pq.write_table(rows(40), tmp_path / "rows.parquet")
    environment = child_environment(settings)
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in printed.stdout.splitlines()]) == 40
    code = (
        "import sys; from platform_assets.cli import app; sys.argv = ['falaj', *sys.argv[1:]]\n"
        "try:\n app()\nexcept SystemExit:\n pass\n"
        "print([name for name in ('dagster', 'pandas', 'torch', 'feast', 'mlflow') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, *command[3:], "--out", str(out)], env=environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines()[-1] == "[]"
    before = out.read_bytes()
    table = rows(1)
    pq.write_table(pa.concat_tables([table] * 400_000).combine_chunks(), tmp_path / "rows.parquet")
    running = subprocess.Popen([*command, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".out*")) and running.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert out.read_bytes() == before


def test_every_error_of_the_command_is_ours(settings, tmp_path):
    with pytest.raises(FalajError):
        predict_file(settings, MODEL, tmp_path, out=tmp_path / "out.csv")
