import json

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from drifting import drifting_table
from pyarrow import csv
from typer.testing import CliRunner

from platform_assets.cli import app
from platform_assets.errors import DataError, FalajError, SourceError, SpecError
from platform_assets.main_job.drift_verbs import read_policy
from platform_assets.specs.model import PayoffSpec

ROWS = 2400


@pytest.fixture(params=["csv", "parquet", "delta"])
def table(request, tmp_path):
    rows = drifting_table("abrupt", rows=ROWS)
    place = tmp_path / f"rows.{request.param}"
    if request.param == "csv":
        csv.write_csv(rows, place)
    elif request.param == "parquet":
        pq.write_table(rows, place)
    else:
        deltalake.write_deltalake(str(place), rows)
    return place


def ask(*words):
    return CliRunner().invoke(app, ["drift", "replay", *map(str, words)], catch_exceptions=True)


def test_a_table_of_each_format_is_replayed_into_figures_and_a_picture(table, tmp_path):
    found = ask(table, "--time", "at", "--target", "y", "--json", tmp_path / "out.json")
    assert found.exit_code == 0, found.output
    value = json.loads((tmp_path / "out.json").read_text())
    assert value["rows"] == ROWS
    assert {"score", "gain", "cost", "trainings", "delay", "false_alarms"} <= value.keys()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "The policy wins" in found.output


def test_a_missing_table_and_a_missing_column_are_told(tmp_path):
    assert isinstance(ask(tmp_path / "none.parquet", "--time", "at", "--target", "y").exception, SourceError)
    pq.write_table(drifting_table("stable", rows=ROWS), tmp_path / "rows.parquet")
    found = ask(tmp_path / "rows.parquet", "--time", "when", "--target", "y", "--json", tmp_path / "out.json")
    assert isinstance(found.exception, FalajError)
    assert not (tmp_path / "out.json").exists()


def test_a_policy_file_is_read_and_its_faults_are_all_told(tmp_path):
    place = tmp_path / "policy.yaml"
    place.write_text("budget: 0.1\nrefresh_keeps: null\n")
    assert read_policy(place) == PayoffSpec(budget=0.1, refresh_keeps=None)
    place.write_text("budget: 3\nleast: 1\n")
    with pytest.raises(SpecError) as fault:
        read_policy(place)
    assert {found.field for found in fault.value.faults} == {"budget", "least"}
    with pytest.raises(SpecError, match="cannot be read"):
        read_policy(tmp_path / "none.yaml")
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    place.write_text(f"a0: &a0 x\n{bomb}budget: *a11\n")  # printed in a message it would be 100 GB
    with pytest.raises(SpecError, match="aliases") as fault:
        read_policy(place)
    assert len(str(fault.value)) < 500


def report(monkeypatch, tmp_path, *words, model="hotel_cancellations"):
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    return CliRunner().invoke(app, ["drift", "report", model, *map(str, words)], catch_exceptions=True)


@pytest.fixture
def two(tmp_path):
    """A table, and later rows of it in which one column moved and one is gone."""
    rows = drifting_table("stable", rows=ROWS).drop_columns(["at"])
    pq.write_table(rows.slice(0, ROWS // 2), tmp_path / "past.parquet")
    now = rows.slice(ROWS // 2).drop_columns(["x4"])
    moved = now.set_column(now.column_names.index("x1"), "x1", pc.add(now["x1"], 1.0))
    csv.write_csv(moved, tmp_path / "now.csv")
    return tmp_path / "past.parquet", tmp_path / "now.csv"


def test_two_tables_are_held_against_each_other_on_the_screen_as_json_and_as_a_page(two, monkeypatch, tmp_path):
    past, now = two
    found = report(
        monkeypatch, tmp_path, "--reference", past, "--current", now, "--html", tmp_path / "p.html", "--json", tmp_path / "o.json"
    )
    assert found.exit_code == 0, found.output
    value = json.loads((tmp_path / "o.json").read_text())
    (window,) = value["report"]["windows"]
    assert {column["column"] for column in window["columns"] if column["drifted"] and column["layer"] == "column"} == {"x1"}
    assert (value["release"], value["rows"], window["drifted"]) == (None, {"reference": ROWS // 2, "current": ROWS // 2}, True)
    assert value["left_out"] == {"x4": "only the reference has it"}
    assert "x1" in found.output
    page = (tmp_path / "p.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "x1" in page


def test_equal_tables_have_not_drifted(two, monkeypatch, tmp_path):
    past, _ = two
    found = report(monkeypatch, tmp_path, "--reference", past, "--current", past, "--json", tmp_path / "o.json")
    assert found.exit_code == 0
    assert not json.loads((tmp_path / "o.json").read_text())["report"]["windows"][0]["drifted"]


def test_bad_input_of_a_report_is_told_and_nothing_is_written(two, monkeypatch, tmp_path):
    past, now = two
    written = tmp_path / "o.json"

    def fault(*words, **named):
        found = report(monkeypatch, tmp_path, *words, "--json", written, **named)
        assert found.exit_code != 0
        assert not written.exists()
        return found.exception

    gone = fault("--reference", tmp_path / "none.parquet", "--current", now)
    assert isinstance(gone, SourceError)
    assert "none.parquet" in str(gone)
    unknown = fault("--reference", past, "--current", now, model="nobody")
    assert isinstance(unknown, FalajError)
    assert "nobody" in str(unknown)
    pq.write_table(pa.table({"other": [1.0, 2.0]}), tmp_path / "other.parquet")
    apart = fault("--reference", past, "--current", tmp_path / "other.parquet")
    assert isinstance(apart, DataError)
    assert "no column in common" in str(apart)
    pq.write_table(pq.read_table(past).slice(0, 0), tmp_path / "empty.parquet")
    assert "has no rows" in str(fault("--reference", past, "--current", tmp_path / "empty.parquet"))
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(past.read_bytes()[:200])
    assert isinstance(fault("--reference", torn, "--current", now), FalajError)
    assert isinstance(fault("--reference", past), SystemExit)  # --current is asked for by the command line itself
