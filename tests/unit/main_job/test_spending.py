"""`falaj spend`, `falaj status` and `falaj approve` on a home with a few entries."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
from pipeline.tiny import DEFS, MODEL, TinyHome
from rich.console import Console
from typer.testing import CliRunner

from platform_assets import cli
from platform_assets.errors import StateError
from platform_assets.main_job.spending import read_spending
from platform_assets.specs.spending import Asked, Month


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyHome:
    home = TinyHome(tmp_path / "home")
    monkeypatch.setattr(cli, "console", Console(width=200))
    for name, value in {"FALAJ_HOME": str(home.home.root), "FALAJ_DEFS": str(DEFS), "DAGSTER_HOME": str(home.home.instance)}.items():
        monkeypatch.setenv(name, value)
    asked = Asked("dear", "uae-north", price_aed_per_hour=20, gpus=2)
    with home.parts.ledger.measure(model=MODEL, stage="model/trained", run_id="earlier", tenant="tests", asked=asked) as meter:
        meter.add(wall_seconds=3600 * 1.5)
    return home


def run(*arguments: str):
    found = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert found.exit_code == 0
    return found


def test_spend_is_shown_by_tenant_and_model_and_written_as_json_and_focus(tiny: TinyHome, tmp_path: Path) -> None:
    read_spending(tiny.settings, month=None, focus=tmp_path / "focus.csv")
    (row,) = csv.DictReader((tmp_path / "focus.csv").open())
    assert (row["SubAccountId"], row["BillingCurrency"]) == ("tests", "AED")
    assert float(row["BilledCost"]) == pytest.approx(30, abs=0.1)

    run("spend", "--month", str(Month.of(time.time())), "--json", str(tmp_path / "spend.json"))
    (model,) = json.loads((tmp_path / "spend.json").read_text())["models"]
    assert (model["tenant"], model["model"], model["gpu_seconds"]) == ("tests", MODEL, pytest.approx(10800, abs=10))


def test_another_month_has_its_own_entries(tiny: TinyHome, tmp_path: Path) -> None:
    told = read_spending(tiny.settings, month="2020-01", focus=tmp_path / "focus.csv")
    assert (told["month"], told["models"][0]["spent_aed"]) == ("2020-01", 0)
    assert list(csv.DictReader((tmp_path / "focus.csv").open())) == []


def test_what_is_no_month_is_one_sentence(tiny: TinyHome) -> None:
    with pytest.raises(StateError, match="--month: 'soon' is not a month"):
        read_spending(tiny.settings, month="soon", focus=None)


def test_status_carries_the_spend_and_what_is_held(tiny: TinyHome, tmp_path: Path) -> None:
    told = run("status", "--json", str(tmp_path / "status.json")).output
    value = json.loads((tmp_path / "status.json").read_text())
    assert value["held"] == []
    assert value["spend"]["tenants"][0]["spent_aed"] == pytest.approx(30, abs=0.1)
    assert f"Spend in {Month.of(time.time())}" in told


def test_a_run_that_nobody_holds_cannot_be_approved(tiny: TinyHome) -> None:
    with pytest.raises(StateError, match="0 held runs begin with 'abc'; held: none"):
        CliRunner().invoke(cli.app, ["approve", "abc"], catch_exceptions=False)
