"""How the live release is served, gathered from the server and told to people. What counts as worse is monitoring's to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from platform_assets.components.step import build_check
from platform_assets.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.specs.model import ModelSpec
    from platform_assets.specs.records import RolloutVerdict
    from platform_assets.specs.service import ServiceReport
    from resources.parts import Parts


def watch_service(
    model: ModelSpec, parts: Parts, previous: Sequence[ServiceReport], *, live: RolloutVerdict, at: str
) -> tuple[ServiceReport, ...]:
    """Judge what was answered since the last report; nothing is added where no server answers, or another version does."""
    from platform_assets.stages.monitoring.service import extend_service

    try:
        arm = parts.serving.arms(model.name).get(live.live_digest)
    except ServingError:  # a stopped server serves nothing badly
        arm = None
    if arm is None:
        return tuple(previous)
    rollout = next((one for one in (live.challenger, live.champion) if one is not None and one.version == arm.version), None)
    return extend_service(previous, live=arm, rollout=rollout, at=at, spec=model.monitoring)


def check_service(key: Sequence[str], service: Sequence[ServiceReport]) -> dg.AssetCheckResult:
    """Check of the newest span: what got worse, or that nothing did."""
    newest = service[-1] if service else None
    sentence = f"{newest.sentence}." if newest else "There are too few requests to judge yet."
    passed = newest is None or not newest.regressed
    figures = {one.what: one.effect for one in newest.findings} if newest else {}
    return build_check(key, "service_is_as_released", passed=passed, severity=dg.AssetCheckSeverity.WARN, sentence=sentence, **figures)


def alert_service(model: ModelSpec, parts: Parts, new: Sequence[ServiceReport]) -> None:
    """Tell people what got worse, once a release and figure until somebody has acknowledged it. No retraining is asked for."""
    for report in new:
        for one in report.regressed:
            key = f"{model.name}/service/{report.version}/{one.what}"
            parts.notifier.notify(f"{model.name}: served worse than released", f"{report.sentence}.", severity=one.severity, key=key)
