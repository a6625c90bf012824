"""The gates: declared bounds on metrics, alone or against the champion. What happens to a refused candidate is decided elsewhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from platform_assets.errors import ReleaseError
from platform_assets.specs.model import parse_bound
from platform_assets.specs.records import Bound, GateVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping

VS_CHAMPION = "_vs_champion"


def judge(
    gates: Mapping[str, str], *, found: Mapping[str, float], champion: Mapping[str, float] | None, champion_version: str | None
) -> GateVerdict:
    """Hold metrics against bounds; `metric_vs_champion` bounds the difference to the champion's, measured on the same holdout.

    Without a champion such a bound is left out, and the sentence says so. An unknown metric, or one that is no number, is a ReleaseError.
    """
    bounds, skipped = [], []
    for gate, text in gates.items():
        metric = gate.removesuffix(VS_CHAMPION)
        value = _take(metric, found, gate)
        if gate.endswith(VS_CHAMPION):
            if champion is None:
                skipped.append(gate)
                continue
            value -= _take(metric, champion, gate)
        bounds.append(Bound(metric=gate, bound=text, found=value, holds=_holds(value, text)))
    return GateVerdict(
        passed=all(bound.holds for bound in bounds),
        bounds=tuple(bounds),
        champion=champion_version if champion is not None else None,
        sentence=_say(bounds, skipped),
    )


def _take(metric: str, metrics: Mapping[str, float], gate: str) -> float:
    if metric not in metrics:
        raise ReleaseError(f"gate {gate!r} asks for {metric!r}, which was not measured; measured are: {', '.join(sorted(metrics))}")
    value = float(metrics[metric])
    if not math.isfinite(value):
        raise ReleaseError(f"gate {gate!r}: {metric} is {value}, which no bound can judge; look at the holdout's rows")
    return value


def _holds(value: float, text: str) -> bool:
    operator, limit = parse_bound(text)
    return value >= limit if operator == ">=" else value <= limit


def _say(bounds: list[Bound], skipped: list[str]) -> str:
    broken = [f"{bound.metric} is {bound.found:.4f}, asked {bound.bound}" for bound in bounds if not bound.holds]
    verdict = f"refused: {'; '.join(broken)}" if broken else f"all {len(bounds)} gates hold"
    return f"{verdict} (no champion yet: {', '.join(skipped)} left out)" if skipped else verdict
