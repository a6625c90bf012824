"""Where data may be kept: residency of datasets, along the graph, against the jurisdiction of stores, queues, logs and targets.

As for profiles, one function says so when declarations are loaded, when a run asks to start and before a step places anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from platform_assets import keys
from platform_assets.errors import Fault
from platform_assets.specs.catalogue import Catalogue
from platform_assets.specs.places import Part, Place, by_place
from platform_assets.stages.governance.residency import is_transferred, lapsed, trace

# What every asset leaves somewhere, whatever it makes: metadata and logs of its run, entries, figures, and what people are told.
_ALWAYS: tuple[Part, ...] = ("runs", "audit log", "ledger", "telemetry", "events", "notices")
_KEPT: dict[str, tuple[Part, ...]] = {
    "dataset": ("tables", "clocks"),
    "features": ("tables", "online values"),
    "training_set": ("artefacts",),
    "trained": ("artefacts", "model registry"),
    "candidates": ("artefacts",),
    "release": ("releases", "model registry"),
    "deployed": ("inference server", "production log", "edge box"),
    "rollout_verdict": ("artefacts", "model registry"),
    "production_log": ("production log", "tables"),
    "drift_report": ("artefacts",),
    keys.SWEEP: ("studies",),
    keys.AUDIT_REPORT: ("artefacts",),
}


@dataclass(frozen=True)
class Misplaced:
    """An asset that would leave something where its data may not be; `path` is the way of the data, the place last."""

    dataset: str
    residency: str
    path: tuple[str, ...]
    place: Place
    lapsed: str = ""

    @property
    def jurisdiction(self) -> str:
        """Whose law holds at the place."""
        return self.place.jurisdiction

    @property
    def sentence(self) -> str:
        """What a person reads: the whole path, both laws, who says so, and what would be right."""
        return (
            f"{' -> '.join(self.path)} would be in {self.jurisdiction} ({self.place.declared} says so), and dataset {self.dataset!r} "
            f"may only be in {self.residency}{self.lapsed}; name a place that stands in {self.residency}, or declare another residency "
            "or a transfer with its dated legal basis"
        )


def parts_of(asset: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts that an asset's data comes to: those of its state, then those that all assets write to."""
    family, state = asset[0], asset[-1]
    return (*_KEPT.get(state if family == "model" else family, ()), *_ALWAYS)


def find_misplaced(
    catalogue: Catalogue, assets: Iterable[Sequence[str]], *, places: Sequence[Place], on: date | None = None
) -> list[Misplaced]:
    """Hold the residency of what each asset is made from against where it leaves something; each place is told once, at the first asset.

    A declared transfer that holds on this day (today in UTC when left out) makes another jurisdiction right.
    """
    found: dict[tuple[str, tuple[str, str, str]], Misplaced] = {}
    for asset in assets:
        path = trace(catalogue, asset)
        if not path:
            continue
        dataset = catalogue.datasets[path[0][1]]
        for spot, parts in by_place(place for part in parts_of(asset) for place in places if place.part == part).items():
            place = parts[0]
            if place.jurisdiction == dataset.residency or is_transferred(dataset, place.jurisdiction, on=on):
                continue
            named = f"{', '.join(dict.fromkeys(one.part for one in parts))} ({place.where})"
            way = (*("/".join(key) for key in path), named)
            found.setdefault(
                (dataset.name, spot), Misplaced(dataset.name, dataset.residency, way, place, lapsed(dataset, place.jurisdiction))
            )
    return list(found.values())


def check_places(catalogue: Catalogue, places: Sequence[Place]) -> Iterator[Fault]:
    """Yield a fault for every place that declared data would come to and may not be in, at the declaration that brings it there first."""
    told: set[tuple[str, tuple[str, str, str]]] = set()
    for file, field, assets in _lives(catalogue):
        for misplaced in find_misplaced(catalogue, assets, places=places):
            spot = (misplaced.dataset, misplaced.place.spot)
            if spot not in told:
                told.add(spot)
                yield Fault(file, field, misplaced.sentence)


def _lives(catalogue: Catalogue) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Every declaration's file, the field of it that decides, and what is made from it in order; datasets before their models."""
    for name, dataset in catalogue.datasets.items():
        made = [keys.dataset_key(name, state) for state in keys.DATASET_STATES]
        yield catalogue.files[f"dataset/{name}"], "residency", [*made, *(keys.features_key(name, view) for view in dataset.views)]
    for name, model in catalogue.models.items():
        states = [*keys.MODEL_STATES, *([keys.SWEEP] if model.training.search else []), keys.AUDIT_REPORT]
        yield catalogue.files[f"model/{name}"], "dataset", [keys.model_key(name, state) for state in states]


def list_places(catalogue: Catalogue, model: str, *, places: Sequence[Place], on: date) -> list[dict[str, Any]]:
    """Return every place that a model's data comes to: its parts, its law, the asset that comes there first, and on which ground."""
    dataset = catalogue.dataset_of(model)
    way = trace(catalogue, keys.model_key(model, keys.AUDIT_REPORT))
    life = [*way[:-1], *(keys.features_key(dataset.name, view) for view in catalogue.models[model].features.views), way[-1]] if way else []
    rows = []
    for (where, jurisdiction, declared), parts in by_place(places).items():
        first = next((asset for asset in life if any(place.part in parts_of(asset) for place in parts)), None)
        if first is None:
            continue
        at_home = jurisdiction == dataset.residency
        bases = [transfer.basis for transfer in dataset.transfers if transfer.holds(jurisdiction, on=on)]
        rows.append({
            "parts": [place.part for place in parts], "where": where, "jurisdiction": jurisdiction, "declared": declared,
            "reached_by": "/".join(first), "ground": "residency" if at_home else "; ".join(bases) or "none",
        })  # fmt: skip
    return rows
