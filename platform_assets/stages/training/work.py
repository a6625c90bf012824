"""One training from start to end: fit preprocessing, fit the network, judge it, write the folder."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch

from platform_assets.errors import TrainingError
from platform_assets.measures import measure
from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import Trained, save_trained, warm_start, write_json
from platform_assets.networks.companions import Figures, place_here
from platform_assets.networks.conditions import conditions_here, note_conditions
from platform_assets.networks.course import Course
from platform_assets.networks.feed.cache import ShardCache
from platform_assets.networks.feed.encoded import encode_splits, fit_once
from platform_assets.networks.feed.shard_feed import ShardFeed
from platform_assets.networks.fitting import Classifier, Lesson, hidden_shares, predict_together
from platform_assets.networks.launch import open_fabric
from platform_assets.networks.loop import Loop
from platform_assets.networks.private.sampling import PoissonFeed
from platform_assets.networks.program import use_threads
from platform_assets.networks.shards import read_schema
from platform_assets.networks.snapshots import seed_chance, take_module
from platform_assets.networks.stopping import Stop
from platform_assets.networks.trail import Trail

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from platform_assets.networks.companions import Report
    from platform_assets.networks.feed.encoded import EncodedSplit
    from platform_assets.networks.feed.protocol import Feed
    from platform_assets.networks.launch import LoggedFabric
    from platform_assets.networks.plans import RunPlan, TrainingPlan
    from platform_assets.specs.guarantee import Guarantee

JUDGED = ("calibration", "holdout")
IMAGE_WARP = 0.5  # accuracy on the 8 by 8 digits after 60 epochs: 0.978 unwarped, 0.982 at 0.7, 0.960 at 1.2


@dataclass(frozen=True, kw_only=True)
class Journey:
    """Where a training reads and writes, whom it tells, and who may stop it.

    `cache` is this node's folder of encoded shards; within `out`, it goes when the training is whole.
    """

    data: Path
    out: Path
    report: Report
    cache: Path
    cache_bytes: int
    warm: Path | None = None
    stop: Stop = field(default_factory=Stop)
    trail: Trail = field(default_factory=Trail)
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True)
class Result:
    """Figures of one training, written to result.json."""

    parameters: int
    size_bytes: int
    calibration: dict[str, float]
    holdout: dict[str, float]
    seconds: float
    rows: dict[str, int]
    warm_start: str | None
    warm_share: float
    privacy: Guarantee | None = None


def train(plan: TrainingPlan, *, run: RunPlan, journey: Journey) -> Result | None:
    """Train on a training-set folder and write the training folder; None on every rank but the first.

    Besides the checkpoint: predictions_<split>.npy of what the network is judged by (float32 [N, C]), curve.json and, last of all,
    result.json: a folder with a result.json is whole. Answers to the training rows are not kept: their memory would grow with them.
    Raises DataError and TrainingError.
    """
    start = time.monotonic()
    out, stop = journey.out, journey.stop
    out.mkdir(parents=True, exist_ok=True)
    use_threads(_threads_here(plan))
    fabric = open_fabric(plan, run)
    first = fabric.global_rank == 0
    if first:
        (out / "result.json").unlink(missing_ok=True)
        note_conditions(out, conditions_here(run, processes=fabric.world_size))
    journey.report.step("train/begun", processes=float(fabric.world_size))
    schema = read_schema(journey.data)
    cache = ShardCache(journey.cache, limit_bytes=journey.cache_bytes)
    preprocessing = fit_once(journey.data, schema=schema, cache=cache, vocabulary=plan.vocabulary, max_tokens=plan.max_tokens)
    rank, world = fabric.global_rank, fabric.world_size
    splits = encode_splits(journey.data, schema=schema, preprocessing=preprocessing, cache=cache, rank=rank, world=world)
    stop.check()
    journey.report.step("train/feed", **cache.figures())
    torch.manual_seed(plan.seed)
    network = build_network(plan, preprocessing=preprocessing, classes=len(schema.classes))
    parameters = sum(weight.numel() for weight in network.parameters())
    warm_share = warm_start(network, preprocessing=preprocessing, training=journey.warm) if journey.warm is not None else 0.0
    if not first:
        seed_chance(plan.seed, rank=fabric.global_rank)  # the same weights on all ranks, then each its own masks
    feed = _open_feed(splits["train"], plan=plan, fabric=fabric, warm=journey.warm)
    lesson = Lesson(classes=len(schema.classes), warp=IMAGE_WARP if preprocessing.image_size else 0.0, hide=hidden_shares(schema))
    module = _learner(network, plan=plan, steps=feed.steps * plan.epochs, lesson=lesson)
    labels = {split: splits[split].labels() for split in JUDGED}

    def judge(fitted: nn.Module) -> dict[str, float]:
        said = predict_together(fitted, splits["calibration"], fabric=fabric, stop=stop)
        figures = measure(labels["calibration"], probabilities=said, kind=plan.kind)
        return {f"calibration_{name}": value for name, value in figures.items()}

    course = Course(
        plan=plan, run=run, fabric=fabric, report=journey.report, name="train", folder=out, stop=stop, figures=journey.figures,
        trail=journey.trail,
    )  # fmt: skip
    loop = Loop(module, feed=feed, course=course, judge=judge)
    loop.run()
    said = {name: predict_together(module, splits[name], fabric=fabric, stop=stop) for name in JUDGED}
    weights = take_module(network, keep=first)
    if not first:
        return None
    note_conditions(out, conditions_here(run, processes=world, setbacks=loop.setbacks))
    plain = build_network(plan, preprocessing=preprocessing, classes=len(schema.classes))  # the trained one may be in shards
    plain.load_state_dict(weights)
    save_trained(out, Trained(plain, plan, preprocessing, schema))
    _write_predictions(out, said)
    write_json(out / "curve.json", loop.curve)
    figures = {name: measure(labels[name], probabilities=said[name], kind=plan.kind) for name in JUDGED}
    result = Result(
        parameters=parameters, size_bytes=(out / "checkpoint.pt").stat().st_size,
        calibration=figures["calibration"], holdout=figures["holdout"], seconds=round(time.monotonic() - start, 3),
        rows={name: split.rows for name, split in splits.items()},
        warm_start=str(journey.warm) if journey.warm is not None else None, warm_share=warm_share, privacy=loop.guarantee,
    )  # fmt: skip
    write_json(out / "result.json", _plain(result))
    shutil.rmtree(out / "state", ignore_errors=True)  # nothing goes on from there any more
    if journey.cache.is_relative_to(out):
        shutil.rmtree(journey.cache, ignore_errors=True)
    journey.report.step("train/done", seconds_wall=result.seconds, **{f"holdout_{name}": value for name, value in result.holdout.items()})
    return result


def _open_feed(rows: EncodedSplit, *, plan: TrainingPlan, fabric: LoggedFabric, warm: Path | None) -> Feed:
    """Deal the rows out in order, all of them each epoch; for a private training by Poisson sampling."""
    if plan.privacy is None:
        return ShardFeed(
            rows, batch=plan.batch_size, seed=plan.seed, device=fabric.device, rank=fabric.global_rank, world=fabric.world_size
        )  # fmt: skip
    if warm is not None:
        raise TrainingError(
            f"training.privacy begins from nothing: what {warm} learnt from rows is counted nowhere; leave the warm start out"
        )
    return PoissonFeed(rows, batch=plan.batch_size)


def _learner(network: nn.Module, *, plan: TrainingPlan, steps: int, lesson: Lesson) -> pl.LightningModule:
    """Wrap a network in what it learns by; a module of the user's own says that itself."""
    return network if isinstance(network, pl.LightningModule) else Classifier(network, plan=plan, steps=steps, lesson=lesson)


def _threads_here(plan: TrainingPlan) -> int | None:
    """Share the declared threads of a node among its processes."""
    return max(1, plan.threads // place_here().local_size) if plan.threads is not None else None


def _write_predictions(out: Path, said: dict[str, NDArray[np.float32]]) -> None:
    for split, probabilities in said.items():
        beside = out / f".predictions_{split}.npy"
        np.save(beside, probabilities)
        beside.replace(out / f"predictions_{split}.npy")


def _plain(result: Result) -> dict[str, Any]:
    return asdict(result)
