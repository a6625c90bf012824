"""The model component: one defs.yaml to the model's assets and checks. Its jobs are in jobs.py, since sensors over all models name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import scaffold_with

from platform_assets import keys
from platform_assets.components import (
    audit_steps,
    monitoring_steps,
    release_steps,
    retraining_steps,
    serving_steps,
    teacher_steps,
    training_steps,
)
from platform_assets.components.scaffold import ModelScaffolder
from platform_assets.components.step import Outcome, Step, build_step
from platform_assets.components.tree import catalogue_of
from platform_assets.specs.catalogue import Catalogue
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.stages.placement.binding import Binding, bind

if TYPE_CHECKING:
    from pydantic import BaseModel

CODE_VERSION = "1"


@dataclass(frozen=True)
class State:
    """One state of a model's life: its work, the state of the same model it follows, what a person reads."""

    name: str
    work: Callable[[ModelSpec, DatasetSpec, Step], Outcome | None]
    after: str | None
    text: str
    kinds: tuple[str, ...]
    checks: tuple[str, ...] = ()
    blocking: bool = True


LIFE = (
    State("training_set", training_steps.make_training_set, None, "Features as of each event's time, split in time order.", ("feast",)),
    State("trained", teacher_steps.train_teacher, "training_set", "The declared network, trained in a process of its own.", ("pytorch",)),
    State(
        "candidates", training_steps.search_candidates, "trained", "Compressed variants, measured on this CPU.", ("onnx",),
        training_steps.CANDIDATE_CHECKS, blocking=False,
    ),
    State("selected", release_steps.select_candidate, "candidates", "The cheapest candidate within the declared limits.", ("onnx",)),
    State(
        "gate_verdict", release_steps.judge_gates, "selected", "Whether it may be released, bound by bound.", ("decision",),
        ("gates_hold",), blocking=False,
    ),
    State("release", release_steps.make_release, "gate_verdict", "The content-addressed bundle, registered.", ("onnx", "mlflow")),
    State("deployed", serving_steps.deploy_release, "release", "Shadow, canary, live, or back.", ("onnx",)),
    State(
        "rollout_verdict", serving_steps.record_rollout, "deployed", "What became of the rollout, with its samples.", ("decision",),
        ("live_version_is_proven_by_hash",),
    ),
    State("production_log", monitoring_steps.collect_log, "deployed", "Every prediction, and later its label.", ("deltalake",)),
    State(
        "drift_report", monitoring_steps.report_drift, "production_log", "Windows of the log against the training reference.", ("numpy",),
        ("feed_is_healthy", "window_resembles_training", "service_is_as_released"), blocking=False,
    ),
    State("retraining_verdict", retraining_steps.decide_retraining, "drift_report", "Whether to retrain, and why.", ("decision",)),
    State(
        "retraining_outcome", retraining_steps.record_outcome, "retraining_verdict", "What became of the newest retraining.", ("decision",)
    ),
)  # fmt: skip


SWEEP = State(
    keys.SWEEP,
    teacher_steps.run_trial,
    "training_set",
    "One trial of the declared search each time; the best goes on as `trained`.",
    ("optuna",),
)

AUDIT = State(
    keys.AUDIT_REPORT,
    audit_steps.report_audit,
    "retraining_outcome",
    "The regulator's report, from lineage and audit log alone.",
    ("decision",),
)


def build_model_assets(name: str, catalogue: Catalogue) -> list[dg.AssetsDefinition]:
    """Build every asset of one model, each bound to its profile."""
    model, dataset = catalogue.models[name], catalogue.dataset_of(name)
    sources = [keys.dataset_key(dataset.name, "protected"), *(keys.features_key(dataset.name, view) for view in model.features.views)]
    return [
        build_step(
            keys.model_key(model.name, state.name),
            partial(state.work, model, dataset),
            deps=_deps(model, state) or sources,
            group=keys.model_group(model.name),
            owner=model.owner,
            description=state.text,
            kinds=set(state.kinds),
            code_version=CODE_VERSION,
            check_names=state.checks,
            tags={"falaj/tenant": model.tenant},
            binding=_bind(model, state.name, catalogue),
            blocking=state.blocking,
        )
        for state in (*LIFE, *([SWEEP] if model.training.search else []), AUDIT)
    ]


def _deps(model: ModelSpec, state: State) -> list[list[str]]:
    after = [state.after] if state.after else []
    if state.name == "trained" and model.training.search:
        after.append(keys.SWEEP)
    if state.name == "retraining_outcome":
        after.append("rollout_verdict")
    return [keys.model_key(model.name, name) for name in after]


def _bind(model: ModelSpec, state: str, catalogue: Catalogue) -> Binding:
    name, profile = catalogue.profile_of(model.name, state)
    return bind(profile, name=name, tenant=model.tenant, model=model.name, impact=model.sla.impact)


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
        """Build with the dataset this model reads in this home, and the compute catalogue."""
        return dg.Definitions(assets=build_model_assets(self.spec.name, catalogue_of(context.defs_module_path)))
