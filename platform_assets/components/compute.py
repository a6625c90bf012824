"""The compute component: one defs.yaml to the catalogue of profiles. It makes no assets: models and datasets are bound to it in theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import scaffold_with

from platform_assets.components.scaffold import ComputeScaffolder
from platform_assets.specs.compute import ComputeSpec

if TYPE_CHECKING:
    from pydantic import BaseModel


@scaffold_with(ComputeScaffolder)
class Compute(dg.Component):
    """What assets run on, what that costs and who may spend how much: one file for the whole tree."""

    def __init__(self, spec: ComputeSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The declaration's shape."""
        return ComputeSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Compute:
        """Wrap a validated declaration."""
        del context
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Nothing of its own: assets read the catalogue."""
        del context
        return dg.Definitions()
