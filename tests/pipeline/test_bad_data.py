"""What a bad delivery does to a running platform: the last good version stays in force, and says so."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline.tiny import TinyHome
from rich.console import Console

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.errors import StageError
from platform_assets.main_job.jobs import Jobs
from platform_assets.main_job.progress import Bars
from platform_assets.specs.places import Place
from platform_assets.specs.records import InForce, TablePin
from resources.home import prepare_home
from resources.settings import CHECKOUT

NAME, ROWS = "deliveries", 200
CHAIN = [keys.dataset_key(NAME, state) for state in keys.DATASET_STATES]
DECLARATION = """
type: platform_assets.components.dataset.Dataset
attributes:
  name: deliveries
  owner: team:tests
  source: {{kind: file, path: "{path}"}}
  key: parcel
  event_time: sent_at
  columns:
    parcel: {{type: string}}
    sent_at: {{type: timestamp}}
    price: {{type: number, minimum: 0}}
    email: {{type: string, personal: {{method: drop}}}}
  contract: {{min_rows: 100, max_shrink: 0.5, {rule}}}
  views:
    parcel: {{kind: columns, entity: parcel, columns: [price]}}
"""


class Deliveries:
    """A dataset that reads one file, which a test delivers anew."""

    def __init__(self, folder: Path, *, rule: str) -> None:
        self.file = folder / "delivery.parquet"
        declaration = folder / "defs" / "datasets" / NAME / "defs.yaml"
        declaration.parent.mkdir(parents=True)
        declaration.write_text(DECLARATION.format(path=self.file, rule=rule))
        self.tiny = TinyHome(folder / "home", defs=folder / "defs")
        prepare_home(self.tiny.home, (CHECKOUT / "infra" / "dagster" / "laptop.yaml").read_bytes())

    def deliver(self, *, bad: int = 0, rows: int = ROWS, **columns: Any) -> None:
        """Write a delivery; the first `bad` rows cost less than nothing."""
        start = datetime(2024, 1, 1)
        table = {
            "parcel": [f"p{row}" for row in range(rows)],
            "sent_at": pa.array([start + timedelta(hours=row) for row in range(rows)], pa.timestamp("us")),
            "price": [-1.0 if row < bad else float(row) for row in range(rows)],
            "email": [f"person{row}@mail.example" for row in range(rows)],
        }
        pq.write_table(pa.table({name: column for name, column in {**table, **columns}.items() if column is not None}), self.file)

    def refresh(self, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        """Run the dataset's chain in this process."""
        job = self.tiny.repository().get_job(keys.refresh_job(NAME))
        config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        selection = [dg.AssetKey(key) for key in CHAIN]
        return job.execute_in_process(instance=instance, asset_selection=selection, run_config=config, raise_on_error=False)

    def in_force(self, instance: dg.DagsterInstance) -> InForce:
        return latest_record(instance, CHAIN[1], InForce)

    def pins(self) -> list[TablePin]:
        return [self.tiny.parts.tables.pin(keys.table_name(key)) for key in CHAIN]

    def checks(self, result: dg.ExecuteInProcessResult) -> dict[str, bool]:
        return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


@pytest.fixture
def blocking(tmp_path: Path) -> Iterator[tuple[Deliveries, dg.DagsterInstance]]:
    deliveries = Deliveries(tmp_path, rule="on_violation: block")
    with deliveries.tiny.instance() as instance:
        yield deliveries, instance


def test_a_breach_leaves_the_last_good_version_in_force_and_says_so(blocking: tuple[Deliveries, dg.DagsterInstance]) -> None:
    deliveries, instance = blocking
    deliveries.deliver()
    assert deliveries.refresh(instance).success
    good, pins = deliveries.in_force(instance), deliveries.pins()

    deliveries.deliver(bad=3)
    result = deliveries.refresh(instance)
    kept = deliveries.in_force(instance)
    assert not deliveries.checks(result)["values_within_ranges"]
    assert deliveries.checks(result)["schema_matches"]
    assert kept.pin == good.pin
    assert kept.source_version == good.source_version
    assert "values_within_ranges" in kept.refused
    assert deliveries.pins()[1:] == pins[1:], "downstream still reads the old version"
    assert deliveries.pins()[0] != pins[0], "what came in is kept as it came"

    deliveries.deliver()
    assert deliveries.refresh(instance).success
    assert deliveries.in_force(instance).refused is None


def test_nothing_is_placed_in_a_store_that_came_to_stand_abroad_and_the_refusal_is_audited(
    blocking: tuple[Deliveries, dg.DagsterInstance],
) -> None:
    deliveries, instance = blocking
    deliveries.deliver()
    settings = deliveries.tiny.settings
    deliveries.tiny.settings = replace(settings, places=(Place("tables", "a bucket of another region", "DE", "team.toml"),))
    result = deliveries.refresh(instance)
    assert not result.success
    assert deliveries.pins() == [None] * len(CHAIN)
    (told,) = [one for one in deliveries.tiny.parts.audit.entries() if one["action"] == "placement_refused"]
    assert (told["subject"], told["detail"]["jurisdiction"]) == (f"dataset/{NAME}", "DE")
    assert told["detail"]["path"] == ["/".join(CHAIN[0]), "tables (a bucket of another region)"]
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert told["detail"]["reason"] in failed.event_specific_data.error.message
    deliveries.tiny.settings = settings
    assert deliveries.refresh(instance).success


def test_undeclared_personal_data_blocks_by_name_and_count_and_no_value_is_shown(blocking: tuple[Deliveries, dg.DagsterInstance]) -> None:
    deliveries, instance = blocking
    deliveries.deliver()
    assert deliveries.refresh(instance).success
    good, pins = deliveries.in_force(instance), deliveries.pins()
    parcels = [f"p{row}" for row in range(ROWS - 2)] + ["sent to leaked.person@mail.example", "AE070331234567890123456"]
    deliveries.deliver(parcel=parcels)
    result = deliveries.refresh(instance)
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}["no_undeclared_personal_data"]
    assert not found.passed
    assert "column parcel looks like e-mail in 1 of 202 rows; column parcel looks like IBAN in 1 of 202 rows" in found.description
    assert deliveries.in_force(instance).pin == good.pin
    assert deliveries.pins()[1:] == pins[1:]
    (told,) = [one for one in deliveries.tiny.parts.audit.entries() if one["action"] == "personal_data_found"]
    everything = f"{told} {found} {instance.get_latest_materialization_event(dg.AssetKey(CHAIN[1]))}"
    assert "leaked" not in everything
    assert "AE0703" not in everything


def test_the_same_delivery_again_makes_no_new_version(blocking: tuple[Deliveries, dg.DagsterInstance]) -> None:
    deliveries, instance = blocking
    deliveries.deliver()
    assert deliveries.refresh(instance).success
    pins = deliveries.pins()
    deliveries.deliver()
    assert deliveries.refresh(instance).success
    assert deliveries.pins() == pins


def test_a_first_delivery_that_is_refused_ends_the_run_with_its_sentence(blocking: tuple[Deliveries, dg.DagsterInstance]) -> None:
    deliveries, instance = blocking
    deliveries.deliver(bad=3)
    with pytest.raises(StageError, match=r"Version 0 of deliveries was refused and no earlier one is good: .*values_within_ranges"):
        _jobs(deliveries, instance).run(keys.refresh_job(NAME))
    assert deliveries.pins()[3] is None


def test_quarantine_sets_offending_rows_aside_without_personal_data(tmp_path: Path) -> None:
    deliveries = Deliveries(tmp_path, rule="on_violation: quarantine, max_quarantined: 0.05")
    deliveries.deliver(bad=4)
    with deliveries.tiny.instance() as instance:
        result = deliveries.refresh(instance)
        assert result.success
        assert not deliveries.checks(result)["values_within_ranges"]
        assert deliveries.in_force(instance).quarantined_rows == 4
        _, validated, quarantined, protected = deliveries.pins()
        assert (validated.rows, quarantined.rows, protected.rows) == (ROWS - 4, 4, ROWS - 4)
        assert "email" not in deliveries.tiny.parts.tables.read(quarantined).column_names

        deliveries.deliver(bad=20)
        result = deliveries.refresh(instance)
        assert "more than 5 %" in deliveries.in_force(instance).refused, "too many to be set aside"
        assert deliveries.pins()[1:] == [validated, quarantined, protected]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"price": None}, r"delivery\.parquet.*price"),
        ({"price": ["dear"] * ROWS}, r"delivery\.parquet.*price"),
        ({"parcel": ["p0"] * ROWS}, "values of the key parcel name rows of different sent_at"),
    ],
    ids=["a column is missing", "a column is of another type", "one key names many events"],
)
def test_a_delivery_of_another_shape_ends_the_run_with_one_sentence(
    blocking: tuple[Deliveries, dg.DagsterInstance], columns: dict[str, Any], sentence: str
) -> None:
    deliveries, instance = blocking
    deliveries.deliver(**columns)
    with pytest.raises(StageError, match=sentence) as raised:
        _jobs(deliveries, instance).run(keys.refresh_job(NAME))
    assert "Traceback" not in str(raised.value)
    assert deliveries.pins() == [None] * 4


def test_a_missing_file_ends_the_run_with_one_sentence(blocking: tuple[Deliveries, dg.DagsterInstance]) -> None:
    deliveries, instance = blocking
    with pytest.raises(StageError, match=r"dataset__deliveries__ingested: .*delivery\.parquet"):
        _jobs(deliveries, instance).run(keys.refresh_job(NAME))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "hotel_bookings"], "write DATASET=FILE"),
        (["--source", "hotel_bookings=nowhere.parquet"], "no file or folder nowhere.parquet"),
        (["--source", f"digits={__file__}"], "this dataset has a source of its own"),
        (["no_such_model"], "no model of this name"),
    ],
)
def test_a_wrong_call_ends_with_one_sentence_and_leaves_nothing(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    tiny = TinyHome(tmp_path / "home", defs=CHECKOUT / "platform_assets" / "defs")
    answer = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", "run", *arguments], env=tiny.environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert sentence in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr
    assert not tiny.home.state.exists()


def _jobs(deliveries: Deliveries, instance: dg.DagsterInstance) -> Jobs:
    return Jobs(instance, deliveries.tiny.repository(), Bars(Console(file=io.StringIO())), deliveries.tiny.parts)
