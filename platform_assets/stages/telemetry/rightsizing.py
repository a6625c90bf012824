"""Right-sizing: what a profile offers against what a training used, and the declared profile that would fit better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from platform_assets.specs.compute import ComputeProfile
from platform_assets.specs.spending import Entry, Used

HEADROOM = 1.25  # a profile fits when it offers this much of what was used
FULL = 0.9  # more of the memory in use than this: the next training may run out of it
BUSY_GPU = 0.8  # share of the time that GPUs are meant to work
WAITING = 0.1  # share of the time spent waiting for data from which the cores, not the GPUs, are the narrow place
ENOUGH_SECONDS = 60.0  # less says more about starting than about training
Verdict = Literal["fits", "smaller", "larger", "unknown"]


@dataclass(frozen=True)
class Advice:
    """A verdict on a profile, the one to take instead (None: stay, or none is declared), and the sentence a person reads."""

    verdict: Verdict
    profile: str | None
    sentence: str


def advise(profile: str, *, profiles: Mapping[str, ComputeProfile], used: Used) -> Advice:
    """Hold the profile that was asked for against what one node used; name the next smaller or larger declared one that fits.

    Only profiles of the same place and kind are named (region, jurisdiction, spot, nodes, with GPUs or without), a smaller one only
    where it costs no more.
    """
    asked, seen = profiles[profile], _Seen.of(used)
    if seen is None:
        return Advice("unknown", None, f"Nobody watched what was used of {profile}.")
    told = _describe(profile, asked, seen)
    if seen.seconds < ENOUGH_SECONDS:
        return Advice("unknown", None, f"{told} It was watched for {seen.seconds:.0f} s: too short to judge the profile by.")
    if asked.accelerator is not None and not used.gpus:
        return Advice("unknown", None, f"{told} It ran without its GPUs, so its figures do not judge the profile.")
    return _judge(profile, profiles, seen, told)


def advise_ledger(entries: Iterable[Entry], *, profiles: Mapping[str, ComputeProfile]) -> dict[tuple[str, str], Advice]:
    """Judge the newest watched step of each model and stage, where its profile is still declared; keys are (model, stage)."""
    watched = [entry for entry in entries if entry.used.seconds is not None and entry.asked.profile in profiles]
    newest = {(entry.model, entry.stage): entry for entry in sorted(watched, key=lambda entry: entry.began)}
    return {whose: advise(entry.asked.profile, profiles=profiles, used=entry.used) for whose, entry in sorted(newest.items())}


@dataclass(frozen=True)
class _Seen:
    seconds: float
    cores_mean: float
    cores: float
    memory_bytes: int
    busy: float | None
    gpu_memory_bytes: int | None
    data_wait: float

    @classmethod
    def of(cls, used: Used) -> _Seen | None:
        if used.seconds is None or used.cpu_cores_mean is None or used.cpu_cores_p95 is None or used.peak_memory_bytes is None:
            return None
        return cls(
            used.seconds, used.cpu_cores_mean, used.cpu_cores_p95, used.peak_memory_bytes, used.gpu_utilisation,
            used.peak_gpu_memory_bytes, used.data_wait or 0.0,
        )  # fmt: skip


def _judge(profile: str, profiles: Mapping[str, ComputeProfile], seen: _Seen, told: str) -> Advice:
    asked = profiles[profile]
    alike = {name: other for name, other in profiles.items() if name != profile and _same_place(asked, other)}
    if short := _short_of(asked, seen):
        return _larger(asked, seen, alike, f"{told} It is short of {short}")
    gpus = _gpus_needed(asked, seen)
    smaller = {
        name: other for name, other in alike.items()
        if _fits(other, seen, gpus=gpus) and _at_least(asked, other) and other.price_aed_per_hour <= asked.price_aed_per_hour
    }  # fmt: skip
    if smaller:
        best = min(smaller, key=lambda name: (smaller[name].price_aed_per_hour, _size(smaller[name])))
        saved = asked.price_aed_per_hour - smaller[best].price_aed_per_hour
        return Advice("smaller", best, f"{told} Take {best} instead: it fits with headroom and saves {saved:.2f} AED an hour a node.")
    if _fits(asked, seen, gpus=gpus, headroom=2 * HEADROOM) and (asked.accelerator is None or gpus < _gpus(asked)):
        return Advice("smaller", None, f"{told} Less than half of it is needed, but no smaller profile that fits is declared.")
    return Advice("fits", None, f"{told} The profile fits.")


def _short_of(asked: ComputeProfile, seen: _Seen) -> str | None:
    """Name what ran short. A CPU training fills whatever cores there are, so that alone is no want of cores."""
    if seen.memory_bytes > FULL * asked.memory_bytes:
        return "memory"
    waits = seen.data_wait >= WAITING
    return "cores for its data" if asked.accelerator is not None and waits and seen.cores >= FULL * asked.cpu else None


def _larger(asked: ComputeProfile, seen: _Seen, alike: Mapping[str, ComputeProfile], told: str) -> Advice:
    fit = {name: other for name, other in alike.items() if _at_least(other, asked) and other.memory_bytes >= HEADROOM * seen.memory_bytes}
    if _short_of(asked, seen) != "memory":
        fit = {name: other for name, other in fit.items() if other.cpu > asked.cpu}
    if not fit:
        return Advice("larger", None, f"{told}, and no larger profile that fits is declared.")
    best = asked.larger if asked.larger in fit else min(fit, key=lambda name: (fit[name].price_aed_per_hour, _size(fit[name])))
    return Advice("larger", best, f"{told}: take {best}.")


def _gpus_needed(asked: ComputeProfile, seen: _Seen) -> int:
    """GPUs a node that would do the same work when busy; all of them where they stood idle for want of data."""
    if seen.busy is None or seen.data_wait >= WAITING:
        return _gpus(asked)
    return math.ceil(_gpus(asked) * max(seen.busy, 0.01) / BUSY_GPU)


def _fits(profile: ComputeProfile, seen: _Seen, *, gpus: int, headroom: float = HEADROOM) -> bool:
    return profile.cpu >= headroom * seen.cores and profile.memory_bytes >= headroom * seen.memory_bytes and _gpus(profile) >= gpus


def _at_least(one: ComputeProfile, other: ComputeProfile) -> bool:
    """Whether one profile has all that another has, and more of something."""
    return _size(one) != _size(other) and all(more >= less for more, less in zip(_size(one), _size(other), strict=True))


def _gpus(profile: ComputeProfile) -> int:
    return profile.accelerator.count if profile.accelerator else 0


def _size(profile: ComputeProfile) -> tuple[int, float, int]:
    return _gpus(profile), profile.cpu, profile.memory_bytes


def _same_place(one: ComputeProfile, other: ComputeProfile) -> bool:
    return (one.region, one.jurisdiction, one.spot, one.nodes, one.accelerator is None) == (
        other.region, other.jurisdiction, other.spot, other.nodes, other.accelerator is None,
    )  # fmt: skip


def _describe(name: str, asked: ComputeProfile, seen: _Seen) -> str:
    gib = 2**30
    said = (
        f"{name} offers {asked.cpu:g} cores and {asked.memory_bytes / gib:.1f} GiB a node; used were {seen.cores_mean:.1f} cores "
        f"(95 % of the time at most {seen.cores:.1f}) and {seen.memory_bytes / gib:.2f} GiB"
    )
    if seen.busy is not None:
        memory = f" and {seen.gpu_memory_bytes / gib:.1f} GiB of each" if seen.gpu_memory_bytes is not None else ""
        said += f", its GPUs ({_gpus(asked)} a node) for {seen.busy:.0%} of the time{memory}"
    return f"{said}."
