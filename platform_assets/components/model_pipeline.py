"""The model component: one defs.yaml to the model's assets and checks. Its jobs are in jobs.py, since sensors over all models name them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import scaffold_with

from platform_assets import keys
from platform_assets.components import monitoring_steps, release_steps, serving_steps, training_steps
from platform_assets.components.scaffold import ModelScaffolder
from platform_assets.components.step import build_step
from platform_assets.components.tree import catalogue_of
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

# state, work, states upstream of the same model, what a person reads, kinds, checks
_LIFE: tuple[tuple[str, Callable[..., Any], tuple[str, ...], str, set[str], tuple[str, ...]], ...] = (
    ("training_set", training_steps.make_training_set, (), "Features as of each event's time, split in time order.", {"feast", "parquet"}, ()),
    ("trained", training_steps.train_teacher, ("training_set",), "The declared network, trained in a process of its own.", {"pytorch", "mlflow"}, ()),
    ("candidates", training_steps.search_candidates, ("trained",), "Compressed variants, measured on this CPU.", {"onnx", "pytorch"}, training_steps.CANDIDATE_CHECKS),
    ("selected", release_steps.select_candidate, ("candidates",), "The cheapest candidate within the declared limits.", {"onnx"}, ()),
    ("gate_verdict", release_steps.judge_gates, ("selected",), "Whether it may be released, bound by bound.", {"decision"}, ("gates_hold",)),
    ("release", release_steps.make_release, ("gate_verdict",), "The content-addressed bundle, registered.", {"onnx", "mlflow"}, ()),
    ("deployed", serving_steps.deploy_release, ("release",), "Shadow, canary, live, or back.", {"onnx"}, ()),
    ("rollout_verdict", serving_steps.record_rollout, ("deployed",), "What became of the rollout, with its samples.", {"decision", "mlflow"}, ("live_version_is_proven_by_hash",)),
    ("production_log", monitoring_steps.collect_log, ("deployed",), "Every prediction, and later its label.", {"deltalake"}, ()),
    ("drift_report", monitoring_steps.report_drift, ("production_log",), "Windows of the log against the training reference.", {"numpy"}, ("window_resembles_training",)),
    ("retraining_verdict", monitoring_steps.decide_retraining, ("drift_report",), "Whether a retraining is asked for, and why.", {"decision"}, ()),
)  # fmt: skip


def build_model_assets(model: ModelSpec, dataset: DatasetSpec) -> list[dg.AssetsDefinition]:
    """Build every asset of one model."""
    sources = [keys.dataset_key(dataset.name, "protected"), *(keys.features_key(dataset.name, view) for view in model.features.views)]
    return [
        build_step(
            keys.model_key(model.name, state),
            partial(work, model, dataset),
            deps=[keys.model_key(model.name, up) for up in upstream] or sources,
            group=keys.model_group(model.name),
            owner=model.owner,
            description=text,
            kinds=kinds,
            code_version="1",
            check_names=checks,
            tags={"falaj/tenant": model.tenant},
            blocking=state not in ("gate_verdict", "drift_report", "candidates"),
        )  # fmt: skip
        for state, work, upstream, text, kinds, checks in _LIFE
    ]


@scaffold_with(ModelScaffolder)
class ModelPipeline(dg.Component):
    """One model, its whole life: features, training, compression, release, rollout, drift, retraining."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The declaration's shape."""
        return ModelSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> ModelPipeline:
        """Wrap a validated declaration."""
        del context
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build with the dataset this model reads in this home."""
        catalogue = catalogue_of(context.defs_module_path)
        return dg.Definitions(assets=build_model_assets(catalogue.models[self.spec.name], catalogue.dataset_of(self.spec.name)))
