"""Rules over the compute catalogue and what models take of it. Field rules of one file live in the specs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from platform_assets import keys
from platform_assets.errors import Fault
from platform_assets.specs.compute import ComputeProfile, ComputeSpec
from platform_assets.specs.model import LearningSpec, ModelSpec, RangeSpec, TrainingSpec
from platform_assets.specs.words import listed

# Fields that a trial may change: what a person tunes. Who wrote the network and how many cores there are is no trial's business.
SEARCHABLE = tuple(sorted(set(LearningSpec.model_fields) - {"module", "options", "threads"}))
_TAKEN_BY = {"trained": "training", keys.SWEEP: "training", "candidates": "compression"}


def local_compute() -> ComputeSpec:
    """Return the catalogue of a tree that declares none: one profile, this machine, free of charge."""
    mebibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    profile = ComputeProfile(cpu=os.cpu_count() or 1, memory=f"{mebibytes}Mi", price_aed_per_hour=0)
    return ComputeSpec(default="local", profiles={"local": profile})


def profile_name(model: ModelSpec, state: str, *, compute: ComputeSpec) -> str:
    """Return the name of the profile that a state of a model runs on; the default where it names none."""
    part = _TAKEN_BY.get(state)
    return (getattr(model, part).compute if part else None) or compute.default


def check_compute(compute: ComputeSpec) -> Iterator[Fault]:
    """Hold the rules of the catalogue itself."""
    profiles = compute.profiles
    if compute.default not in profiles:
        yield Fault("", "default", _unknown_profile(compute.default, profiles))
    for name, profile in profiles.items():
        yield from _check_larger(name, profile, profiles)


def _check_larger(name: str, profile: ComputeProfile, profiles: Mapping[str, ComputeProfile]) -> Iterator[Fault]:
    field = f"profiles.{name}.larger"
    if profile.larger is None:
        return
    other = profiles.get(profile.larger)
    if other is None:
        yield Fault("", field, _unknown_profile(profile.larger, profiles))
        return
    way = _way_up(name, profiles)
    if way[-1] == name and len(way) > 1:
        yield Fault("", field, f"{' -> '.join(way)} comes back to where it began; a chain of larger profiles ends")
        return
    if (other.accelerator is None) != (profile.accelerator is None):
        has, lacks = (name, profile.larger) if profile.accelerator else (profile.larger, name)
        yield Fault("", field, f"{has!r} has GPUs and {lacks!r} has none; a retry stays on the same kind of machine")
    elif not _is_larger(other, than=profile):
        yield Fault("", field, f"{profile.larger!r} has no more memory and no more GPUs than {name!r}; a retry needs more")


def _is_larger(profile: ComputeProfile, *, than: ComputeProfile) -> bool:
    return profile.gpus > than.gpus or profile.memory_bytes > than.memory_bytes


def _way_up(name: str, profiles: Mapping[str, ComputeProfile]) -> list[str]:
    way = [name]
    while (profile := profiles.get(way[-1])) and profile.larger and way.count(way[-1]) == 1:
        way.append(profile.larger)
    return way


def check_binding(model: ModelSpec, compute: ComputeSpec) -> Iterator[Fault]:
    """Hold what a model takes of the catalogue against it."""
    for part in dict.fromkeys(_TAKEN_BY.values()):
        name = getattr(model, part).compute
        if name is not None and compute.profiles and name not in compute.profiles:
            yield Fault("", f"{part}.compute", _unknown_profile(name, compute.profiles))


def check_training(training: TrainingSpec) -> Iterator[Fault]:
    """Hold the rules between fields of a training."""
    if training.architecture == "custom" and training.module is None:
        yield Fault("", "training.module", "architecture custom needs module: package.module:Class of a LightningModule of your own")
    if training.architecture != "custom" and training.module is not None:
        yield Fault("", "training.module", f"{training.module!r} goes with architecture custom, this one is {training.architecture}")
    if training.architecture != "custom" and training.options:
        yield Fault("", "training.options", f"options go with architecture custom, this one is {training.architecture}")
    for field, space in training.search.items():
        faults = list(_check_space(f"training.search.{field}", field, space))
        yield from faults
        if not faults and not _holds(space, getattr(training, field)):
            message = f"the declared {field}, {getattr(training, field)!r}, is the first trial and must be among what is searched"
            yield Fault("", f"training.search.{field}", message)


def _check_space(where: str, field: str, space: RangeSpec | tuple[bool | float | str, ...]) -> Iterator[Fault]:
    if field not in SEARCHABLE:
        yield Fault("", where, f"{field!r} is no field that a trial may change; valid: {listed(SEARCHABLE)}")
        return
    ends = [int(value) if value.is_integer() else value for value in (space.low, space.high)] if isinstance(space, RangeSpec) else []
    values = ends if isinstance(space, RangeSpec) else space
    if not values:
        yield Fault("", where, "the list of choices is empty; name at least one value")
    for value in values:
        yield from _check_value(where, field, value)
    if isinstance(space, RangeSpec):
        if space.low >= space.high:
            yield Fault("", where, f"low {space.low:g} is not below high {space.high:g}")
        if space.log and space.low <= 0:
            yield Fault("", where, f"log needs numbers above nil, found low {space.low:g}")


def _holds(space: RangeSpec | tuple[bool | float | str, ...], value: Any) -> bool:
    return space.low <= value <= space.high if isinstance(space, RangeSpec) else value in space


def _check_value(where: str, field: str, value: object) -> Iterator[Fault]:
    try:
        LearningSpec.model_validate({"architecture": "tabular_mlp", field: value}, strict=True)
    except ValidationError as error:
        yield Fault("", where, f"{error.errors(include_url=False)[0]['msg']}, found {value!r}")


def _unknown_profile(name: str, profiles: Mapping[str, Any]) -> str:
    return f"no profile {name!r}; declared: {listed(profiles)}"
