"""The folder of a trained network: what is written, and how it is read back. Every file is written beside and renamed.

checkpoint.pt (state dict), preprocessing.json, schema.json, plan.json (TrainingPlan).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from platform_assets.errors import TrainingError
from platform_assets.networks import tokens
from platform_assets.networks.architectures import build_network
from platform_assets.networks.plans import TrainingPlan
from platform_assets.networks.preprocessing import FIRST, Preprocessing
from platform_assets.networks.shards import read_schema
from platform_assets.networks.unpacking import load_tensors
from platform_assets.specs.record_json import read_record, to_json

if TYPE_CHECKING:
    from torch import nn

    from platform_assets.specs.records import FeatureSchema

CHECKPOINT, PREPROCESSING = "checkpoint.pt", "preprocessing.json"
_Named = list[tuple[int, tuple[str, int | str]]]  # row of a table, and what it stands for


@dataclass(frozen=True)
class Trained:
    """A network with what is needed to feed and to export it."""

    network: nn.Module
    plan: TrainingPlan
    preprocessing: Preprocessing
    schema: FeatureSchema


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write plain JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False))


def save_trained(folder: Path, trained: Trained) -> None:
    """Write the folder; checkpoint.pt comes last, so that where it stands the rest does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PREPROCESSING, to_json(trained.preprocessing))
    write_text(folder / "schema.json", to_json(trained.schema))
    write_text(folder / "plan.json", to_json(asdict(trained.plan)))
    beside = folder / f".{CHECKPOINT}.{os.getpid()}"
    torch.save(trained.network.state_dict(), beside)
    beside.replace(folder / CHECKPOINT)


def load_trained(folder: Path) -> Trained:
    """Read the folder back, network in evaluation mode; without a checkpoint TrainingError."""
    if not (folder / CHECKPOINT).is_file():
        raise TrainingError(f"{folder} holds no {CHECKPOINT}; train the model first")
    plan = read_record(TrainingPlan, (folder / "plan.json").read_bytes())
    preprocessing = read_record(Preprocessing, (folder / PREPROCESSING).read_bytes())
    schema = read_schema(folder)
    network = build_network(plan, preprocessing=preprocessing, classes=len(schema.classes))
    network.load_state_dict(load_tensors(folder / CHECKPOINT))
    return Trained(network.eval(), plan, preprocessing, schema)


def warm_start(network: nn.Module, *, preprocessing: Preprocessing, training: Path) -> float:
    """Take over what fits of another training, a folder; return the share of weights taken.

    Rows of categories and word pieces are matched by value, since vocabularies move between trainings; other weights by name and shape.
    """
    before = load_trained(training)
    old, new = before.network.state_dict(), network.state_dict()
    taken = 0
    for name, weight in new.items():
        if name in _ROWS and name in old and old[name].shape[1] == weight.shape[1]:
            to, came = _matching_rows(_ROWS[name](before.preprocessing), _ROWS[name](preprocessing))
            weight[to] = old[name][came]
            taken += len(to) * weight.shape[1]
        elif name in old and old[name].shape == weight.shape:
            weight.copy_(old[name])
            taken += weight.numel()
    return taken / sum(weight.numel() for weight in new.values())


def _matching_rows(old: _Named, new: _Named) -> tuple[list[int], list[int]]:
    places = {row: place for place, row in old}
    pairs = [(place, places[row]) for place, row in new if row in places]
    return [to for to, _ in pairs], [came for _, came in pairs]


def _category_rows(preprocessing: Preprocessing) -> _Named:
    rows: _Named = []
    for column, offset in zip(preprocessing.categories, preprocessing.offsets, strict=True):
        rows += [(offset + index, (column.name, index)) for index in range(FIRST)]
        rows += [(offset + FIRST + index, (column.name, value)) for index, value in enumerate(column.values)]
    return rows


def _piece_rows(preprocessing: Preprocessing) -> _Named:
    pieces = preprocessing.tokeniser.pieces if preprocessing.tokeniser is not None else ()
    return [(place, ("", place)) for place in range(tokens.FIRST)] + [(tokens.FIRST + at, ("", piece)) for at, piece in enumerate(pieces)]


_ROWS = {"table.weight": _category_rows, "pieces.weight": _piece_rows}  # tables whose rows have names
