"""The last look before something is placed: the rules of residency asked again at run time, and a refusal written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets.errors import ResidencyError
from platform_assets.stages.governance.placing import Misplaced, find_misplaced
from platform_assets.stages.governance.residency import Breach, find_breaches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from platform_assets.ports import AuditLog
    from platform_assets.specs.catalogue import Catalogue
    from platform_assets.specs.places import Place


@dataclass(frozen=True)
class Border:
    """What stands where. `open_audit` is asked for a log only where something is refused."""

    catalogue: Catalogue
    places: Sequence[Place]
    open_audit: Callable[[], AuditLog]

    def hold(self, asset: Sequence[str], *, actor: str, profile: str | None = None, places: Sequence[Place] | None = None) -> None:
        """Raise ResidencyError, audited, where this asset's data may not be on its profile or in a place that it comes to.

        `profile`: another than the declared one; `places`: others than this environment's. A transfer that ended meanwhile ends here, too.
        """
        profiles = self.catalogue.compute.profiles
        wrong: list[Breach | Misplaced] = [
            *find_breaches(self.catalogue, [asset], profile_of=(lambda _: (profile, profiles[profile])) if profile else None),
            *find_misplaced(self.catalogue, [asset], places=self.places if places is None else places),
        ]
        if not wrong:
            return
        family, name = asset[0], asset[1]
        detail = {"reason": wrong[0].sentence, "path": list(wrong[0].path), "jurisdiction": wrong[0].jurisdiction}
        subject = f"{'model' if family == 'model' else 'dataset'}/{name}"
        self.open_audit().append("placement_refused", subject=subject, actor=actor, detail=detail)
        raise ResidencyError(f"{wrong[0].sentence}.")
