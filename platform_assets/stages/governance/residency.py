"""Where data may be worked on: residency of datasets, along the graph, against the jurisdiction of profiles.

Asked when declarations are loaded (over everything that could ever run) and when a run asks to start (over what it would make): the
same function, so that what loads also starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial

from platform_assets import keys
from platform_assets.errors import Fault
from platform_assets.specs.catalogue import Catalogue
from platform_assets.specs.compute import ComputeProfile
from platform_assets.specs.dataset import DatasetSpec

ProfileOf = Callable[[Sequence[str]], tuple[str, ComputeProfile]]


@dataclass(frozen=True)
class Breach:
    """An asset that would be made where its data may not be; `path` is the way of the data to it, the asset last."""

    dataset: str
    residency: str
    path: tuple[str, ...]
    profile: str
    jurisdiction: str
    fitting: tuple[str, ...]
    lapsed: str = ""

    @property
    def sentence(self) -> str:
        """What a person reads: the whole path, both laws, and what would be right."""
        cure = f"name one of {', '.join(self.fitting)}" if self.fitting else f"declare a profile that stands in {self.residency}"
        return (
            f"{' -> '.join(self.path)} would run on profile {self.profile!r} in {self.jurisdiction}, and dataset {self.dataset!r} may "
            f"only be in {self.residency}{self.lapsed}; {cure}, or declare another residency or a transfer with its dated legal basis"
        )


def find_breaches(
    catalogue: Catalogue, assets: Iterable[Sequence[str]], *, profile_of: ProfileOf | None = None, on: date | None = None
) -> list[Breach]:
    """Hold the residency of what each asset is made from against where it would be made; nothing found is an empty list.

    Another jurisdiction is right by a declared transfer that holds on this day (today in UTC when left out): what loads today is
    refused at its start when its basis has ended.
    `profile_of` says where an asset would run, if elsewhere than its declaration says. Assets of nobody's declaration have no residency.
    """
    found = []
    for asset in assets:
        path = trace(catalogue, asset)
        if not path:
            continue
        dataset = catalogue.datasets[path[0][1]]
        name, profile = (profile_of or catalogue.profile_of_asset)(asset)
        if profile.jurisdiction != dataset.residency and not is_transferred(dataset, profile.jurisdiction, on=on):
            fitting = tuple(sorted(one for one, its in catalogue.compute.profiles.items() if its.jurisdiction == dataset.residency))
            way = tuple("/".join(key) for key in path)
            found.append(
                Breach(dataset.name, dataset.residency, way, name, profile.jurisdiction, fitting, lapsed(dataset, profile.jurisdiction))
            )
    return found


def is_transferred(dataset: DatasetSpec, jurisdiction: str, *, on: date | None) -> bool:
    """Whether a declared transfer lets rows be in this jurisdiction on this day, today in UTC when left out."""
    day = on or datetime.now(tz=UTC).date()
    return any(transfer.holds(jurisdiction, on=day) for transfer in dataset.transfers)


def lapsed(dataset: DatasetSpec, jurisdiction: str) -> str:
    """Name transfers there that do not hold today, as a part of a sentence."""
    spans = [f"{one.since} to {one.until or 'now'}" for one in dataset.transfers if one.to == jurisdiction]
    return f" (a transfer to {jurisdiction} is declared from {', '.join(spans)})" if spans else ""


def trace(catalogue: Catalogue, asset: Sequence[str]) -> list[list[str]]:
    """Return the way of the data to an asset, from the rows as they came; empty for what no declaration makes."""
    family, name, state = asset if len(asset) == 3 else ("", "", "")  # noqa: PLR2004 - every key of ours has three parts
    model = catalogue.models.get(name)
    if family == "model" and model and state in (*keys.MODEL_STATES, keys.SWEEP, keys.AUDIT_REPORT) and model.dataset in catalogue.datasets:
        return [*_to_protected(model.dataset), *(keys.model_key(name, one) for one in _life_to(state))]
    if family == "features" and name in catalogue.datasets:
        return [*_to_protected(name), list(asset)]
    if family == "dataset" and name in catalogue.datasets:
        whole = _to_protected(name)
        return [*whole[: whole.index(list(asset))], list(asset)] if list(asset) in whole else [*whole[:2], list(asset)]
    return []


def _life_to(state: str) -> list[str]:
    """States on the way to one; a sweep and a rollout's verdict stand beside the line, an audit report after it."""
    if state == keys.SWEEP:
        return ["training_set", state]
    if state == keys.AUDIT_REPORT:
        return [*_life_to(keys.MODEL_STATES[-1]), state]
    return [one for one in keys.MODEL_STATES[: keys.MODEL_STATES.index(state)] if one != "rollout_verdict"] + [state]


def _to_protected(dataset: str) -> list[list[str]]:
    return [keys.dataset_key(dataset, state) for state in keys.DATASET_STATES if state != "quarantined"]


def check_residency(catalogue: Catalogue) -> Iterator[Fault]:
    """Yield a fault for everything declared that could ever run in the wrong place, by the file and field that decide it.

    A profile stands for its chain of larger ones too: a retry after running out of memory may take each of them.
    """
    default = catalogue.compute.default if catalogue.compute.default in catalogue.compute.profiles else None
    for name in catalogue.datasets if default else ():
        for breach in find_breaches(catalogue, [keys.dataset_key(name, "ingested")]):
            yield Fault(catalogue.files[f"dataset/{name}"], "residency", breach.sentence)
    for name, model in catalogue.models.items():
        for state, part in (("trained", "training"), ("candidates", "compression")):
            named = getattr(model, part).compute
            chain = _chain(catalogue, named) if named else _chain(catalogue, default)[1:]  # the default itself is the dataset's fault
            for profile in chain:
                where = partial(_stays, profile, catalogue.compute.profiles[profile])
                for breach in find_breaches(catalogue, [keys.model_key(name, state)], profile_of=where):
                    yield Fault(catalogue.files[f"model/{name}"], f"{part}.compute", breach.sentence)


def _stays(name: str, profile: ComputeProfile, asset: Sequence[str]) -> tuple[str, ComputeProfile]:
    del asset
    return name, profile


def _chain(catalogue: Catalogue, name: str | None) -> list[str]:
    chain: list[str] = []
    while name in catalogue.compute.profiles and name not in chain:
        chain.append(name)
        name = catalogue.compute.profiles[name].larger
    return chain
