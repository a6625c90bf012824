"""Code location of test_compute_binding: two states of the tiny model as the platform builds them, only that their work is a word.

`training_set` runs on the default profile, `trained` on one with a GPU; a sensor and declarative automation ask for both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg

from platform_assets.components import model_pipeline
from platform_assets.components.step import Outcome, Step
from platform_assets.definitions import bind_parts
from platform_assets.keys import dataset_key, model_key
from platform_assets.specs.records import TablePin
from resources.settings import read_settings

MODEL, DATASET = "tiny_cancellations", "tiny_bookings"
ON_CPU, ON_GPU = dg.AssetKey(model_key(MODEL, "training_set")), dg.AssetKey(model_key(MODEL, "trained"))
ARRIVES = dg.AssetKey(dataset_key(DATASET, "protected"))
ASKS, AUTOMATION = "asks", "automation"
GREEDY = json.dumps(
    {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}, "pod_spec_config": {"node_selector": {"a": "b"}}}
)
HOSTILE = {
    "dagster-k8s/config": GREEDY, "dagster/priority": "9999", "falaj/compute": "gpu-all", "falaj/gpus": "8", "falaj/impact": "critical",
    "falaj/tenant": "somebody", "falaj/model": "other",
}  # fmt: skip


def _say_a_word(model: object, dataset: object, step: Step) -> Outcome:
    del model, dataset
    step.place()
    return Outcome(TablePin("nothing", 0, 0, "0" * 64), "0" * 32)


@dg.sensor(name=ASKS, target=[ON_CPU, ON_GPU], minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def asks(_: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
    yield dg.RunRequest(run_key="once", tags=HOSTILE)


@dg.definitions
def defs() -> dg.Definitions:
    parts = bind_parts(read_settings())
    wanted = {ON_CPU.path[-1], ON_GPU.path[-1]}
    model_pipeline.LIFE = tuple(replace(state, work=_say_a_word, checks=()) for state in model_pipeline.LIFE if state.name in wanted)
    conditions = {
        ON_CPU: dg.AutomationCondition.any_deps_updated(),
        ON_GPU: dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested()),
    }
    assets = [
        asset.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=conditions.get(spec.key)))
        for asset in model_pipeline.build_model_assets(MODEL, parts.catalogue)
    ]
    automation = dg.AutomationConditionSensorDefinition(
        AUTOMATION, target="*", default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5
    )
    return dg.Definitions(
        [*assets, dg.AssetSpec(ARRIVES)], sensors=[asks, automation], resources={"parts": parts}, executor=dg.in_process_executor
    )
