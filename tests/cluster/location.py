"""Code location of test_training: a training set, and a small network fitted to it, each bound to a profile as every asset is."""

import os
from pathlib import Path

import dagster as dg
import numpy as np

from platform_assets.components.executors import executor_of
from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile
from platform_assets.stages.placement.binding import bind

CPU = ComputeProfile(cpu=2, memory="4Gi", price_aed_per_hour=1)
GPU = CPU.model_copy(update={"accelerator": AcceleratorSpec(count=1), "node_selector": {"falaj.ae/pool": "gpu"}})
TRAINING_SET, TRAINED = dg.AssetKey(["model", "small", "training_set"]), dg.AssetKey(["model", "small", "trained"])


def _tags(name: str, profile: ComputeProfile) -> dict[str, str]:
    return dict(bind(profile, name=name, tenant="hospitality", model="small", impact="high").tags)


def _home() -> Path:
    return Path(os.environ["FALAJ_HOME"])


@dg.asset(key=TRAINING_SET, op_tags=_tags("cpu", CPU))
def training_set() -> None:
    random = np.random.default_rng(7)
    rows = random.normal(size=(500, 4))
    np.savez(_home() / "rows.npz", rows=rows, labels=rows @ [1.0, -2.0, 0.5, 0.0] > 0)


@dg.asset(key=TRAINED, deps=[TRAINING_SET], op_tags=_tags("gpu", GPU), retry_policy=dg.RetryPolicy(max_retries=3))
def trained(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    (_home() / f"attempt-{context.retry_number}").touch()
    if os.environ["HOLD"]:  # until the test has done to this pod what it does
        with Path(os.environ["HOLD"]).open() as gate:
            gate.read()
    with np.load(_home() / "rows.npz") as data:
        rows, labels = data["rows"], data["labels"]
    weights = np.zeros(rows.shape[1])
    for _ in range(200):
        weights -= 0.5 * rows.T @ (1 / (1 + np.exp(-rows @ weights)) - labels) / len(rows)
    return dg.MaterializeResult(metadata={"accuracy": float(((rows @ weights > 0) == labels).mean())})


defs = dg.Definitions([training_set, trained], jobs=[dg.define_asset_job("train")], executor=executor_of("pods"))
