"""The teachers that compression is measured against: the two shipped ones, and larger ones where they are better for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets import keys
from platform_assets.networks.plans import TrainingPlan
from platform_assets.specs.record_json import from_mapping
from platform_assets.specs.records import Feature, FeatureSchema, TrainingSet
from resources.settings import CHECKOUT, Home, Settings

if TYPE_CHECKING:
    from rich.console import Console

HOTELS, DIGITS = "hotel_cancellations", "digits"
MNIST_SPLIT = (7000, 1500, 1500)  # train, calibration, holdout; drawn: the file's two halves are of different writers
QUICK_EPOCHS, QUICK_BUDGET = 30, 20.0


@dataclass(frozen=True)
class Subject:
    """One teacher, its data, and the computing seconds that its search is declared to take."""

    name: str
    folder: str
    kind: str
    plan: TrainingPlan
    write: Callable[[Path], Path]
    budget_seconds: float


def list_subjects(settings: Settings, *, quick: bool, console: Console) -> Iterator[Subject]:
    """Give the teachers whose data are here; what is left out is said."""
    from platform_assets.specs.catalogue import load_catalogue

    models = load_catalogue(settings.defs_root).models
    digits = _declared(models[DIGITS], "multiclass")
    writes = partial(_write_by_platform, settings, DIGITS, source=None)
    if quick:
        yield Subject("digits (quick)", "digits", "multiclass", replace(digits, epochs=QUICK_EPOCHS), writes, QUICK_BUDGET)
        return
    yield Subject("digits, the shipped vision transformer", "digits", "multiclass", digits, writes, 120.0)
    hotels, images = ((settings.data / name if settings.data else None) for name in ("hotel_bookings.parquet", "mnist_t10k.parquet"))
    if hotels is not None and hotels.exists():
        plan = _declared(models[HOTELS], "binary")
        writes = partial(_write_by_platform, settings, HOTELS, source=hotels)
        yield Subject("hotels, the shipped transformer", "hotels", "binary", plan, writes, 60.0)
        larger = replace(plan, width=64, depth=3)
        yield Subject("hotels, a transformer of twice the width and 3 blocks", "hotels_larger", "binary", larger, writes, 60.0)
    else:
        console.print("no real hotel bookings are here (FALAJ_DATA): their rows are left out")
    if images is not None and images.exists():
        plan = TrainingPlan(
            "vision_transformer", "multiclass", width=64, depth=4, heads=4, dropout=0.0, batch_size=128, learning_rate=2e-3,
            weight_decay=0.3, epochs=24, threads=1,
        )  # fmt: skip
        yield Subject("mnist_t10k, a vision transformer", "mnist", "multiclass", plan, partial(_write_images, images), 120.0)
    else:
        console.print("no mnist_t10k is here (FALAJ_DATA): its rows are left out")


def _declared(model: Any, kind: str) -> TrainingPlan:
    plan: TrainingPlan = from_mapping(TrainingPlan, {**model.training.learning().model_dump(mode="json"), "kind": kind})
    return plan


def _write_by_platform(settings: Settings, model: str, folder: Path, *, source: Path | None) -> Path:
    """Make the training set as the main job does, in a home of its own."""
    import shutil

    import dagster as dg

    from platform_assets.components.step import latest_record
    from platform_assets.definitions import build_defs
    from platform_assets.specs.catalogue import load_catalogue
    from resources.home import bind_sources, prepare_home
    from resources.parts import build_parts

    home = Home(folder.with_name("home"))
    prepare_home(home, (CHECKOUT / "infra" / "dagster" / "laptop.yaml").read_bytes())
    catalogue = load_catalogue(settings.defs_root)
    if source is not None:
        bind_sources(home, {"hotel_bookings": str(source)})
        catalogue = catalogue.provide({"hotel_bookings": str(source)})
    parts = build_parts(replace(settings, home=home), catalogue)
    dataset = catalogue.models[model].dataset
    wanted = [
        *(keys.dataset_key(dataset, state) for state in keys.DATASET_STATES),
        *(keys.features_key(dataset, view) for view in catalogue.models[model].features.views),
        keys.model_key(model, "training_set"),
    ]
    with dg.DagsterInstance.from_config(str(home.instance)) as instance:
        job = build_defs(parts).get_repository_def().get_job(keys.train_job(model))
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(key) for key in wanted], run_config=quiet)
        built = latest_record(instance, keys.model_key(model, "training_set"), TrainingSet)
        assert built is not None
        shutil.copytree(parts.artefacts.path(built.digest), folder)
    return folder


def _write_images(source: Path, folder: Path) -> Path:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from platform_assets.networks.shards import write_training_set

    table = pq.read_table(source)
    pixels = np.stack([np.frombuffer(image, np.uint8) for image in table["image"].to_pylist()]).astype(np.float32)
    labels = np.array([str(label) for label in table["label"].to_pylist()])
    size = pixels.shape[1]
    schema = FeatureSchema((Feature("pixels", "image", "image", "key", size),), "label", tuple("0123456789"), "key", "at")
    places = np.split(np.random.default_rng(7).permutation(len(labels)), np.cumsum(MNIST_SPLIT)[:-1])
    parts = {
        name: [pa.table({"pixels": pa.array(list(pixels[rows]), pa.list_(pa.float32(), size)), "label": labels[rows].tolist()})]
        for name, rows in zip(("train", "calibration", "holdout"), places, strict=True)
    }
    folder.mkdir(parents=True)
    write_training_set(folder, parts, schema=schema)
    return folder
