"""How bad an advisory says that it is: an OSV record's words or its CVSS vector as one word (https://ossf.github.io/osv-schema/)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from platform_assets.scans.findings import Severity

_WORDS: Mapping[str, Severity] = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high", "CRITICAL": "critical"}
_URGENCIES: Mapping[str, Severity] = {"unimportant": "none", "low": "low", "medium": "medium", "high": "high"}  # Debian's security tracker
_ORDER: tuple[Severity, ...] = ("none", "low", "medium", "high", "critical")
# CVSS 3.1 specification, section 7.4 (https://www.first.org/cvss/v3.1/specification-document)
_WEIGHTS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2}, "AC": {"L": 0.77, "H": 0.44}, "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0}, "I": {"H": 0.56, "L": 0.22, "N": 0.0}, "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}  # fmt: skip
_PRIVILEGES = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def read_severity(record: Mapping[str, Any]) -> Severity:
    """Return a record's own word, else its CVSS v3 score's, else Debian's urgency, else unknown (CVSS v4 alone is unknown, too)."""
    word = _WORDS.get(str(_under(record, "database_specific").get("severity", "")).upper())
    if word is not None:
        return word
    affected = [one for one in record.get("affected") or () if isinstance(one, dict)]
    for place in (record, *affected):
        for one in place.get("severity") or ():
            score = cvss3_base_score(str(one.get("score", ""))) if isinstance(one, dict) else None
            if score is not None:
                return rate(score)
    urgencies = [_URGENCIES.get(str(_under(one, "ecosystem_specific").get("urgency", ""))) for one in affected]
    return worst(*(urgency for urgency in urgencies if urgency is not None))


def _under(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, dict) else {}


def worst(*severities: Severity) -> Severity:
    """Return the worst that is known; unknown where nothing is."""
    known = [_ORDER.index(one) for one in severities if one != "unknown"]
    return _ORDER[max(known)] if known else "unknown"


def rate(score: float) -> Severity:
    """Return the word of a CVSS score (section 5)."""
    begins: tuple[tuple[float, Severity], ...] = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"))
    return next((word for begin, word in begins if score >= begin), "none")


def cvss3_base_score(vector: str) -> float | None:
    """Return the base score of a CVSS 3.0 or 3.1 vector (section 7.1), None of anything else."""
    if not re.fullmatch(r"CVSS:3\.[01](/[A-Z]{1,3}:[A-Z])+", vector):
        return None
    of = dict(part.split(":") for part in vector.split("/")[1:])
    try:
        weight = {name: values[of[name]] for name, values in _WEIGHTS.items()} | {"PR": _PRIVILEGES[of["S"]][of["PR"]]}
    except KeyError:
        return None
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    changed = of["S"] == "C"
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    exploitability = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    return 0.0 if impact <= 0 else _round_up(min((1.08 if changed else 1.0) * (impact + exploitability), 10.0))


def _round_up(score: float) -> float:
    """Return the smallest number of one decimal that is no smaller (appendix A: in whole hundred-thousandths)."""
    whole = round(score * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10
