"""Who pays for a step, and what it asks for: the same answer before a run starts and while it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from platform_assets.specs.compute import ComputeProfile
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.spending import NOBODY, Asked, Payer


def payer_of(key: Sequence[str], *, models: Mapping[str, ModelSpec], run_model: str | None) -> Payer:
    """Return tenant and model that a step is charged to.

    A model's step is its own. A dataset's is charged to the model that its run is for (`run_model`), and to nobody, under the dataset's
    name, in a run that is for no model or for several.
    """
    if key[0] == "model" and key[1] in models:
        return models[key[1]].tenant, key[1]
    if run_model is not None and run_model in models:
        return models[run_model].tenant, run_model
    return NOBODY, key[1]


def run_model_of(keys: Sequence[Sequence[str]], *, models: Mapping[str, ModelSpec]) -> str | None:
    """Return the one model that a run is for, by the assets it would make; None for none or several."""
    found = {key[1] for key in keys if key[0] == "model" and key[1] in models}
    return found.pop() if len(found) == 1 else None


def stage_of(key: Sequence[str]) -> str:
    """Return the stage under which a step stands in the ledger: its asset key without the name."""
    return "/".join((key[0], *key[2:]))


def asked_of(name: str, profile: ComputeProfile) -> Asked:
    """Return what a step on this profile holds while it runs."""
    return Asked(
        profile=name, region=profile.region, price_aed_per_hour=profile.price_aed_per_hour, nodes=profile.nodes,
        cpu=profile.cpu, memory_bytes=profile.memory_bytes, gpus=profile.gpus,
    )  # fmt: skip
