"""A code location whose assets are also asked for by declarative automation and by a sensor of their own, once each."""

import dagster as dg

from platform_assets import keys
from platform_assets.definitions import bind_parts, build_defs
from resources.settings import read_settings

ASKED_FOR = ("kept", "barred")


def trained(model: str) -> dg.AssetKey:
    return dg.AssetKey(keys.model_key(model, "trained"))


def with_automation(spec: dg.AssetSpec) -> dg.AssetSpec:
    wanted = [trained(model) for model in ASKED_FOR]
    return spec.replace_attributes(automation_condition=dg.AutomationCondition.initial_evaluation()) if spec.key in wanted else spec


@dg.sensor(
    name="asks_once",
    target=dg.AssetSelection.assets(*(trained(model) for model in ASKED_FOR)),
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def asks_once():
    for model in ASKED_FOR:
        yield dg.RunRequest(run_key=model, asset_selection=[trained(model)], tags={"falaj/hold": "no", "dagster/priority": "9" * 12})


automation = [
    dg.AutomationConditionSensorDefinition(
        f"automates_{model}", target=dg.AssetSelection.assets(trained(model)), default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5,
    )
    for model in ASKED_FOR
]  # fmt: skip


@dg.definitions
def defs() -> dg.Definitions:
    ours = build_defs(bind_parts(read_settings())).map_asset_specs(func=with_automation)
    return dg.Definitions.merge(ours, dg.Definitions(sensors=[asks_once, *automation]))
