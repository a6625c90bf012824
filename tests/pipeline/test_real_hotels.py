"""The declared hotel model on the real bookings: from the file to a teacher that holds its own and a graph that answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from pipeline.tiny import TinyHome

from platform_assets import keys
from platform_assets.answers import open_model
from platform_assets.components.step import latest_record
from platform_assets.definitions import build_defs
from platform_assets.measures import measure
from platform_assets.networks.companions import open_progress
from platform_assets.networks.plans import TrainingPlan
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.record_json import from_mapping, read_record
from platform_assets.specs.records import FeatureSchema, InForce, Ingestion, TablePin, TrainingSet
from resources.home import bind_sources, prepare_home
from resources.parts import Parts, build_parts
from resources.settings import CHECKOUT
from resources.sources import live_rows

pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.timeout(300)]
MODEL, DATASET = "hotel_cancellations", "hotel_bookings"
Chain = tuple[Parts, dg.DagsterInstance]


@pytest.fixture(scope="module")
def chain(real_hotels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Everything from the file to the training set, as the job does it, in this process."""
    tiny = TinyHome(tmp_path_factory.mktemp("hotels") / "home", defs=CHECKOUT / "platform_assets" / "defs")
    prepare_home(tiny.home, (CHECKOUT / "infra" / "dagster" / "laptop.yaml").read_bytes())
    bind_sources(tiny.home, {DATASET: str(real_hotels)})
    catalogue = load_catalogue(tiny.settings.defs_root).provide({DATASET: str(real_hotels)})
    parts = build_parts(tiny.settings, catalogue)
    wanted = [
        *(keys.dataset_key(DATASET, state) for state in keys.DATASET_STATES),
        *(keys.features_key(DATASET, view) for view in catalogue.datasets[DATASET].views),
        keys.model_key(MODEL, "training_set"),
    ]
    with tiny.instance() as instance:
        job = build_defs(parts).get_repository_def().get_job(keys.train_job(MODEL))
        config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(key) for key in wanted], run_config=config)
        yield parts, instance


HISTORY_ROWS = 66_252  # 66,253 in the file; the oldest was booked longer ago than the three years that bookings are kept


def test_history_is_the_first_year_and_live_is_what_came_after(chain: Chain) -> None:
    parts, instance = chain
    ingested = latest_record(instance, keys.dataset_key(DATASET, "ingested"), Ingestion)
    assert ingested.pin.rows == HISTORY_ROWS
    assert live_rows(parts.catalogue.datasets[DATASET], parts.source(DATASET)).num_rows == 53_137


def test_fifteen_rows_of_the_history_are_set_aside(chain: Chain) -> None:
    """Parties of twenty and more, nine babies, a night for 5,400 euros; a sixteenth, with a negative price, comes with the live rows."""
    _, instance = chain
    assert latest_record(instance, keys.dataset_key(DATASET, "validated"), InForce).quarantined_rows == 15
    assert latest_record(instance, keys.dataset_key(DATASET, "protected"), TablePin).rows == HISTORY_ROWS - 15


def test_the_split_is_in_the_order_of_time_and_knows_no_later_outcome(chain: Chain) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    parts, instance = chain
    built = latest_record(instance, keys.model_key(MODEL, "training_set"), TrainingSet)
    folder = parts.artefacts.path(built.digest)
    tables = [pq.read_table(folder / part) for part in ("train", "calibration", "holdout")]
    spans = [(pc.min(table["booking_date"]).as_py(), pc.max(table["booking_date"]).as_py()) for table in tables]
    assert spans[0][1] < spans[1][0]
    assert spans[1][1] < spans[2][0]
    now = parts.clock.now(DATASET)
    assert all(pc.max(table["arrival_date"]).as_py() <= now for table in tables), "an outcome is known at arrival"
    assert {"reservation_status", "assigned_room_type"} & set(tables[0].column_names) == set()


def test_the_declared_teacher_is_at_most_a_hundredth_behind_tuned_trees_and_its_graph_answers(chain: Chain, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from platform_assets.networks.checkpoint import load_trained
    from platform_assets.networks.export import export_onnx
    from platform_assets.stages.evaluation.baseline import fit_baseline
    from tests.unit.stages.training.starts import train_here

    parts, instance = chain
    data = parts.artefacts.path(latest_record(instance, keys.model_key(MODEL, "training_set"), TrainingSet).digest)
    plan = from_mapping(TrainingPlan, {**parts.catalogue.models[MODEL].training.learning().model_dump(mode="json"), "kind": "binary"})
    with open_progress(tmp_path) as progress:
        result = train_here(data, plan=plan, out=tmp_path, report=progress)
    baseline = fit_baseline(data, kind="binary", budget_seconds=20)
    assert result.holdout["auroc"] >= baseline.holdout["auroc"] - 0.01
    assert result.parameters < 40_000
    export_onnx(load_trained(tmp_path), tmp_path / "model.onnx")
    schema = read_record(FeatureSchema, (data / "schema.json").read_bytes())
    rows = pq.read_table(data / "holdout")
    answers = open_model(tmp_path / "model.onnx", schema=schema)(rows)
    labels = np.array([schema.classes.index(label) for label in rows[schema.target].to_pylist()])
    assert answers.shape == (rows.num_rows, 2)
    assert np.isclose(measure(labels, probabilities=answers, kind="binary")["auroc"], result.holdout["auroc"], atol=1e-3)
