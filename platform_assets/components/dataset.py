"""The dataset component: one defs.yaml to the dataset's assets, checks, refresh job and schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import scaffold_with

from platform_assets import keys
from platform_assets.components.dataset_steps import build_dataset_assets
from platform_assets.components.scaffold import DatasetScaffolder
from platform_assets.components.tree import catalogue_of
from platform_assets.specs.catalogue import Catalogue
from platform_assets.specs.dataset import DatasetSpec

if TYPE_CHECKING:
    from pydantic import BaseModel


def build_dataset_defs(name: str, catalogue: Catalogue) -> dg.Definitions:
    """Build assets, checks, job and schedule of one dataset."""
    dataset = catalogue.datasets[name]
    assets = build_dataset_assets(dataset, catalogue.compute)
    job = dg.define_asset_job(
        keys.refresh_job(dataset.name),
        selection=dg.AssetSelection.assets(*assets),
        description=f"Bring {dataset.name} and its features up to the clock.",
    )
    schedules = []
    if dataset.refresh:
        # Declared is in force; a dataset without a source of its own waits until a person switches it on.
        status = dg.DefaultScheduleStatus.STOPPED if dataset.source.kind == "provided" else dg.DefaultScheduleStatus.RUNNING
        rhythm = keys.schedule_name(job.name, "declared")
        schedules.append(
            dg.ScheduleDefinition(rhythm, job=job, cron_schedule=dataset.refresh, execution_timezone="UTC", default_status=status)
        )
    return dg.Definitions(assets=assets, jobs=[job], schedules=schedules)


@scaffold_with(DatasetScaffolder)
class Dataset(dg.Component):
    """One dataset: where it comes from, what it promises, what is personal, which features it gives."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The declaration's shape."""
        return DatasetSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Dataset:
        """Wrap a validated declaration."""
        del context
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build from the declaration with `extends` resolved."""
        return build_dataset_defs(self.spec.name, catalogue_of(context.defs_module_path))
