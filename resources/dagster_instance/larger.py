"""A larger profile for a step that ran out of memory: which is declared, whether the budget has it, and what its pod then asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from platform_assets.stages.placement.binding import IMPACT, K8S_CONFIG, MODEL, TENANT, bind
from resources.dagster_instance.gate import planned_keys, planned_steps, still_going

if TYPE_CHECKING:
    import dagster as dg

    from platform_assets.specs.compute import Impact
    from resources.admission import Admission


@dataclass(frozen=True)
class Room:
    """The profile to try a step again on, or None; and why, in a sentence."""

    sentence: str
    profile: str | None = None


class LargerProfiles:
    """The chain of larger profiles that the compute catalogue declares, under admission's budgets."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._profiles = admission, admission.catalogue.compute.profiles

    def ask(self, instance: dg.DagsterInstance, run: dg.DagsterRun, *, step_key: str, profile: str) -> Room:
        """Return room for a step of this run that ran out of the memory of `profile`; what it is expected to cost there is promised."""
        known = self._profiles.get(profile)
        name = known.larger if known else None
        if known is None or name is None:
            return Room(f"No profile larger than {profile!r} is declared; name one under `larger` in the compute catalogue.")
        larger = self._profiles[name]
        if larger.memory_bytes <= known.memory_bytes:
            return Room(f"The larger profile {name!r} has no more memory a node than {profile!r} ({known.memory}); declare one that has.")
        steps = planned_steps(instance, run)
        keys, own = planned_keys(steps), planned_keys(step for step in steps if step.key == step_key)
        elsewhere = {tuple(key): name for key in own}
        verdict = self._admission.ask(run.run_id, keys, still_going=still_going(instance), elsewhere=elsewhere)
        if verdict.answer != "admit":
            self._admission.ask(run.run_id, keys, still_going=still_going(instance), approved=True)  # the others go on as promised
            return Room(f"It is not tried again on {name!r} ({larger.memory}). {verdict.sentence}")
        price = f"{larger.price_aed_per_hour:,.2f} AED an hour"
        return Room(f"It is tried again on {name!r} ({larger.memory} in place of {known.memory}, {price}). {verdict.sentence}", name)

    def bind(self, declared: Mapping[str, str], *, profile: str) -> dict[str, str]:
        """Return a step's op tags with another profile in place of the declared one; its pod is told so."""
        impact = cast("Impact", declared.get(IMPACT, "normal"))
        bound = bind(self._profiles[profile], name=profile, tenant=declared.get(TENANT, ""), model=declared.get(MODEL, ""), impact=impact)
        config = json.loads(bound.tags[K8S_CONFIG])
        config["container_config"]["env"] = [{"name": "FALAJ_PROFILE", "value": profile}]
        return {**declared, **bound.tags, K8S_CONFIG: json.dumps(config, sort_keys=True)}
