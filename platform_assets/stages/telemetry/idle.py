"""GPUs that are held and idle: found in the samples, told once a spell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from platform_assets.stages.telemetry.samples import Sample

IDLE_BELOW = 0.05  # utilisation: a driver's housekeeping alone shows up to about 0.02
Device = tuple[int, int]  # node, GPU


@dataclass(frozen=True)
class Spell:
    """A GPU of a node without work from `since` to `until` (epoch seconds); `told`: an alert went out."""

    node: int
    gpu: int
    since: float
    until: float
    told: bool = False

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return self.until - self.since


def watch_idle(
    spells: Mapping[Device, Spell], samples: Sequence[Sample], *, longer_than_seconds: float
) -> tuple[dict[Device, Spell], list[Spell]]:
    """Carry open spells on over new samples (in order of time); return them, and those that now deserve an alert.

    A spell is told once, however long it lasts. A sample without utilisation says neither idle nor busy. Samples further apart than
    half of the limit do not belong to one spell: between them the GPU may not have been held at all.
    """
    now, alerts = dict(spells), []
    for sample in samples:
        for gpu in sample.gpus:
            if gpu.utilisation is None:
                continue
            device = (sample.node, gpu.index)
            spell = now.pop(device, None)
            if gpu.utilisation >= IDLE_BELOW:
                continue
            if spell is None or sample.at - spell.until > longer_than_seconds / 2:
                spell = Spell(*device, since=sample.at, until=sample.at)
            spell = replace(spell, until=sample.at)
            if spell.seconds > longer_than_seconds and not spell.told:
                spell = replace(spell, told=True)
                alerts.append(spell)
            now[device] = spell
    return now, alerts
