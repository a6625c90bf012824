"""The dataset component: one defs.yaml to the dataset's assets and checks. Its refresh job is in jobs.py, since sensors name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import scaffold_with

from platform_assets.components.dataset_steps import build_dataset_assets
from platform_assets.components.scaffold import DatasetScaffolder
from platform_assets.components.tree import catalogue_of
from platform_assets.specs.catalogue import Catalogue
from platform_assets.specs.dataset import DatasetSpec

if TYPE_CHECKING:
    from pydantic import BaseModel


def build_dataset_defs(name: str, catalogue: Catalogue) -> dg.Definitions:
    """Build assets and checks of one dataset."""
    return dg.Definitions(assets=build_dataset_assets(catalogue.datasets[name], catalogue.compute))


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
