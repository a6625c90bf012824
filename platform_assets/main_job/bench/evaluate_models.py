"""A contestant: what monitoring costs among many declared models, in runs that are forks of a process that has loaded them.

`... evaluate_models FOLDER MODELS SHARE`. Of each model one new window of its log is judged (log, feed, drift, verdict, outcome):
by a run a model, and by one for SHARE models as those that fall due together get it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import dagster as dg

    from platform_assets.specs.records import FeatureSchema
    from resources.parts import Parts

WINDOW_ROWS, NUMBERS, CATEGORIES, EVERY = 1000, 16, 4, "1m"
_SINGLE = 5
_BEGAN = datetime(2026, 1, 1)  # noqa: DTZ001 all times here are naive UTC


def main() -> None:
    """Print the figures as JSON."""
    from dagster import DagsterInstance

    from platform_assets.definitions import bind_parts, load_defs
    from platform_assets.main_job import site
    from resources.dagster_instance.engines import keep_engines
    from resources.dagster_instance.warm_process import ALSO

    folder, models, share = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    settings, schema = write_home(folder, models=models)
    site.prepare(settings)
    parts = bind_parts(settings)
    names = list(parts.catalogue.models)[: _SINGLE + 1 + share]
    child = _in_a_child(lambda: prepare(names, parts, schema))  # its libraries are not to be in the process that forks
    if child["status"]:
        sys.exit("bench: the models could not be prepared")
    began = time.process_time()
    repository = load_defs(bind_parts(settings)).get_repository_def()
    loaded = time.process_time() - began
    for name in ALSO:
        import_module(name)
    keep_engines()
    gc.collect()
    gc.freeze()

    def evaluate(models: list[str], *, anew: bool) -> None:
        with DagsterInstance.from_config(str(settings.home.instance)) as instance:
            definition = load_defs(bind_parts(settings)).get_repository_def() if anew else repository
            _evaluate(models, definition, instance, parts)

    kept = [_in_a_child(partial(evaluate, [name], anew=False)) for name in names[:_SINGLE]]
    anew = _in_a_child(partial(evaluate, names[_SINGLE : _SINGLE + 1], anew=True))
    shared = _in_a_child(partial(evaluate, names[_SINGLE + 1 :], anew=False))
    if any(run["status"] for run in (*kept, anew, shared)):
        sys.exit("bench: a monitoring run failed")
    figures = {
        "kept_cpu_seconds": median(run["cpu_seconds"] for run in kept), "anew_cpu_seconds": anew["cpu_seconds"],
        "shared_cpu_seconds": shared["cpu_seconds"] / share,
    }  # fmt: skip
    sys.stdout.write(json.dumps({**figures, "load_cpu_seconds": loaded}) + "\n")


def write_home(folder: Path, *, models: int) -> tuple[Any, FeatureSchema]:
    """Declare so many models on one dataset; return the settings of their home, and the schema that all have."""
    from platform_assets.specs.records import Feature, FeatureSchema
    from resources.testing.released import MODEL, declare_released

    numbers = (Feature(f"n{place}", "numeric", "own", "row_id") for place in range(NUMBERS))
    words = (Feature(f"c{place}", "category", "own", "row_id") for place in range(CATEGORIES))
    schema = FeatureSchema((*numbers, *words), "outcome", ("0", "1"), "row_id", "at")
    settings = declare_released(folder, schema=schema)
    given = folder / "defs" / "models" / MODEL / "defs.yaml"
    document = yaml.safe_load(given.read_text())
    given.unlink()
    for number in range(models):
        document["attributes"] |= {"name": f"{MODEL}_{number:05}", "monitoring": {"window_rows": WINDOW_ROWS, "every": EVERY}}
        path = folder / "defs" / "models" / document["attributes"]["name"] / "defs.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(document))
    return settings, schema


def prepare(names: list[str], parts: Parts, schema: FeatureSchema) -> None:
    """One release, live for each model, and a window of its log."""
    import dagster as dg

    from platform_assets import keys
    from platform_assets.components.step import RECORD, key_of
    from platform_assets.specs.record_json import to_json
    from platform_assets.specs.records import RolloutVerdict
    from resources.testing.released import put_release

    digest = put_release(parts.settings.home, schema=schema, graph=b"none asks it", **_profiles(parts, schema))
    log = _draw_log(digest)
    verdict = RolloutVerdict("live", "1", None, digest, (), None, None, 0.0, 0, "made for a measurement")
    with dg.DagsterInstance.from_config(str(parts.settings.home.instance)) as instance:
        for name in names:
            parts.tables.append(keys.table_name(keys.model_key(name, "production_log")), log, key="prediction_id")
            key = key_of(keys.model_key(name, "rollout_verdict"))
            record = dg.MetadataValue.json(json.loads(to_json(verdict)))
            instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={RECORD: record}))
            instance.report_runless_asset_event(dg.AssetMaterialization(key_of(keys.model_key(name, "production_log"))))  # it has answered


def _profiles(parts: Parts, schema: FeatureSchema) -> dict[str, str]:
    from platform_assets.specs.record_json import to_json
    from platform_assets.stages.monitoring.feed import remember_feed
    from platform_assets.stages.monitoring.feed_report import FEED_FILE, feed_columns
    from platform_assets.stages.monitoring.log import stack_probabilities, unpack_inputs
    from platform_assets.stages.monitoring.profile import Profile
    from platform_assets.stages.monitoring.reference import build_reference

    log = _draw_log("past", windows=10)
    rows, spec = unpack_inputs(log, schema=schema), next(iter(parts.catalogue.models.values())).monitoring
    importance = {feature.name: 1 / len(schema.features) for feature in schema.features}
    rows = rows.append_column(schema.target, log["actual"])
    reference = build_reference(rows, schema=schema, probabilities=stack_probabilities(log), spec=spec, importance=importance)
    columns, categories = feed_columns(rows, schema=schema)
    feed = remember_feed(columns, window_rows=WINDOW_ROWS, categories=categories)
    return {
        "profile.json": to_json(Profile(reference, importance)), FEED_FILE: to_json(feed),
        "metrics.json": json.dumps({"holdout": {"auroc": 0.83, "accuracy": 0.75, "log_loss": 0.5}}),  # what such answers are worth
    }  # fmt: skip


def _draw_log(digest: str, *, windows: int = 1) -> Any:
    import numpy as np
    import pyarrow as pa

    random, rows = np.random.default_rng(len(digest)), windows * WINDOW_ROWS
    numbers, words = random.normal(size=(rows, NUMBERS)), random.integers(0, 6, size=(rows, CATEGORIES))
    inputs = [
        json.dumps({
            **{f"n{place}": float(value) for place, value in enumerate(numbers[row])},
            **{f"c{place}": f"v{value}" for place, value in enumerate(words[row])},
        })
        for row in range(rows)
    ]  # fmt: skip
    shares, times = random.random(rows), [_BEGAN + timedelta(seconds=row) for row in range(rows)]
    names = [f"{digest[:6]}{row}" for row in range(rows)]
    stamps, texts = pa.array(times, pa.timestamp("us")), pa.array(names)
    one = {name: pa.array([value] * rows) for name, value in (("model", "given"), ("version", digest[:12]), ("digest", digest))}
    return pa.table({
        "prediction_id": texts, "request_id": texts, **one, "key": texts, "inputs": inputs,
        "label": [str(int(share > 0.5)) for share in shares],  # noqa: PLR2004 - of two classes
        "time": stamps, "event_time": stamps, "probabilities": pa.array([[1 - share, share] for share in shares], pa.list_(pa.float64())),
        "actual": pa.array([str(int(share < one)) for share, one in zip(random.random(rows), shares, strict=True)]),
    })  # fmt: skip


def _evaluate(models: list[str], repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, parts: Parts) -> None:
    from platform_assets.components.judging import ask_for

    request = ask_for(models, parts, now=time.time())
    job = repository.get_job(request.job_name or "")
    selection = list(request.asset_selection) if request.asset_selection else None
    job.execute_in_process(instance=instance, asset_selection=selection, tags=dict(request.tags), raise_on_error=True)


def _in_a_child(work: Callable[[], None]) -> dict[str, float]:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                import traceback

                traceback.print_exc()
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    return {"status": status, "cpu_seconds": used.ru_utime + used.ru_stime}


if __name__ == "__main__":
    main()
