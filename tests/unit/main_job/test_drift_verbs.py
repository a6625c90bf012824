import json

import deltalake
import pyarrow.parquet as pq
import pytest
from drifting import drifting_table
from pyarrow import csv
from typer.testing import CliRunner

from platform_assets.cli import app
from platform_assets.errors import FalajError, SourceError, SpecError
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
