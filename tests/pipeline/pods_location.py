"""Code location of test_pods: a training set, and a small network fitted to it, each bound to a profile as every asset is."""

import os
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np

from platform_assets.components.executors import executor_of
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.compute import AcceleratorSpec, ComputeProfile, ComputeSpec
from platform_assets.stages.placement.binding import bind
from resources.admission import Admission
from resources.ledger import open_ledger

CPU = ComputeProfile(cpu=2, memory="4Gi", price_aed_per_hour=1)
GPU = CPU.model_copy(
    update={"accelerator": AcceleratorSpec(count=1), "node_selector": {"falaj.ae/pool": "gpu"}, "larger": "gpu-large", "cpu": 1}
)
LARGE = GPU.model_copy(update={"memory": "16Gi", "larger": None, "price_aed_per_hour": 4})
MODEL = "tiny_cancellations"
TRAINING_SET, TRAINED = dg.AssetKey(["model", MODEL, "training_set"]), dg.AssetKey(["model", MODEL, "trained"])


def _tags(name: str, profile: ComputeProfile) -> dict[str, str]:
    return dict(bind(profile, name=name, tenant="hospitality", model=MODEL, impact="high").tags)


def _home() -> Path:
    return Path(os.environ["FALAJ_HOME"])


def _admission() -> Admission:
    compute = ComputeSpec(default="cpu", profiles={"cpu": CPU, "gpu": GPU, "gpu-large": LARGE})
    catalogue = replace(load_catalogue(Path(__file__).parent / "defs"), compute=compute)
    return Admission(catalogue, open_ledger(f"sqlite:///{_home() / 'state.sqlite'}"))


@dg.asset(key=TRAINING_SET, op_tags=_tags("cpu", CPU))
def training_set() -> None:
    random = np.random.default_rng(7)
    rows = random.normal(size=(500, 4))
    np.savez(_home() / "rows.npz", rows=rows, labels=rows @ [1.0, -2.0, 0.5, 0.0] > 0)


@dg.asset(key=TRAINED, deps=[TRAINING_SET], op_tags=_tags("gpu", GPU))
def trained(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    told = _home() / "attempt"
    told.write_text(os.environ.get("FALAJ_PROFILE", "as declared"))
    told.rename(_home() / f"attempt-{context.retry_number}")  # whole, since this process is killed as soon as it is there
    if os.environ["HOLD"]:  # until the test has done to this pod what it does
        with Path(os.environ["HOLD"]).open() as gate:
            gate.read()
    with np.load(_home() / "rows.npz") as data:
        rows, labels = data["rows"], data["labels"]
    weights = np.zeros(rows.shape[1])
    for _ in range(200):
        weights -= 0.5 * rows.T @ (1 / (1 + np.exp(-rows @ weights)) - labels) / len(rows)
    return dg.MaterializeResult(metadata={"accuracy": float(((rows @ weights > 0) == labels).mean())})


defs = dg.Definitions([training_set, trained], jobs=[dg.define_asset_job("train")], executor=executor_of("pods", admission=_admission))
