"""The code location: declarations loaded, parts bound, platform-wide policy applied."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from platform_assets.components.automation import build_automation
from platform_assets.components.dataset import build_dataset_defs
from platform_assets.components.executors import executor_of
from platform_assets.components.loggers import loggers_of
from platform_assets.components.model_pipeline import build_model_assets
from platform_assets.components.tree import load_tree
from platform_assets.logs import start_logging
from platform_assets.ports import Watcher
from resources import certificates
from resources.dagster_instance.engines import keep_engines
from resources.dagster_instance.gate import admission_of
from resources.dagster_instance.job_graphs import find_assets_by_key
from resources.dagster_instance.together import write_together
from resources.parts import Parts, build_parts
from resources.settings import CHECKOUT, Settings, read_settings, silence_telemetry

SHIPPED = CHECKOUT / "platform_assets" / "defs"


def build_platform_defs(parts: Parts) -> dg.Definitions:
    """Build what holds for every model: the parts, the executor, jobs, schedules and sensors."""
    executor = executor_of(parts.settings.steps, admission=lambda: admission_of(parts))
    loggers = loggers_of(parts.settings.log_form)
    return dg.Definitions.merge(dg.Definitions(resources={"parts": parts}, executor=executor, loggers=loggers), build_automation(parts))


def build_defs(parts: Parts) -> dg.Definitions:
    """Build the whole location from a catalogue; tests and trees outside the checkout come through here."""
    catalogue = parts.catalogue
    datasets = [build_dataset_defs(name, catalogue) for name in catalogue.datasets]
    models = [asset for name in catalogue.models for asset in build_model_assets(name, catalogue)]
    return dg.Definitions.merge(*datasets, dg.Definitions(assets=models), build_platform_defs(parts))


def load_defs(parts: Parts) -> dg.Definitions:
    """Load the location: the shipped tree through Dagster's components, another one, or a tenant's part, from its catalogue."""
    find_assets_by_key()
    if parts.settings.defs_root != SHIPPED or parts.settings.tenant is not None:
        return build_defs(parts)
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), build_platform_defs(parts))


def bind_parts(settings: Settings, *, watcher: Watcher | None = None) -> Parts:
    """Check every declaration of every file, then bind this environment's parts."""
    return build_parts(settings, load_tree(settings.defs_root, settings), watcher=watcher)


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    silence_telemetry()
    keep_engines()
    write_together()
    settings = read_settings()
    start_logging("steps", settings.log_form)
    certificates.check(settings)
    return load_defs(bind_parts(settings))
