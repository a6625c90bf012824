"""The one file of exceptions: which findings are borne, why, since when and until when.

Each is a table `[[exception]]` of TOML with `finding` (an advisory's id or alias, or a rule), `where` (a package or a file), `reason`,
`granted` and `expires`. No exception is for ever: one that has run out stops the scan, as one that is malformed does.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import ScanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.scans.findings import Finding

LONGEST_DAYS = 366


@dataclass(frozen=True)
class Borne:
    """One exception; both days belong to its term."""

    finding: str
    where: str
    reason: str
    granted: dt.date
    expires: dt.date

    def covers(self, finding: Finding) -> bool:
        """Whether it speaks of this finding, under whichever of its names."""
        return self.where == finding.where and self.finding in (finding.name, *finding.aliases)


def read_exceptions(path: Path, today: dt.date) -> list[Borne]:
    """Return what is borne today; ScanError names the first entry that is malformed or has run out."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        message = f"{path}: the exceptions cannot be read ({error}); right would be a TOML file of [[exception]] tables, or an empty one."
        raise ScanError(message) from error
    entries = found.pop("exception", [])
    if found or not isinstance(entries, list):
        raise ScanError(f"{path}: found {', '.join(found) or 'exception = ...'}; right would be [[exception]] tables alone.")
    return [_read(entry, f"{path}: exception {number}", today) for number, entry in enumerate(entries, start=1)]


def _read(entry: Any, place: str, today: dt.date) -> Borne:
    names = [field.name for field in fields(Borne)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        keys = ", ".join(entry) if isinstance(entry, dict) else repr(entry)
        raise ScanError(f"{place} has {keys or 'nothing'}; right would be {', '.join(names)}, each once.")
    for name in names[:3]:
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise ScanError(f"{place}: {name} is {entry[name]!r}; right would be words.")
    for name in names[3:]:
        if type(entry[name]) is not dt.date:  # a datetime is a date, too
            raise ScanError(f"{place}: {name} is {entry[name]!r}; right would be a day without quotes, as {today}.")
    one = Borne(**entry)
    what = f"{place} ({one.finding} in {one.where})"
    if not one.granted <= today:
        raise ScanError(f"{what} is granted on {one.granted}, after today, {today}; right would be the day somebody decided it.")
    if not one.granted < one.expires <= one.granted + dt.timedelta(days=LONGEST_DAYS):
        raise ScanError(
            f"{what} runs from {one.granted} to {one.expires}; right would be an end after that and within {LONGEST_DAYS} days."
        )
    if one.expires < today:
        raise ScanError(f"{what} ran out on {one.expires}: mend what was found, or decide anew and date the entry anew.")
    return one


def split_borne(findings: Sequence[Finding], exceptions: Sequence[Borne]) -> tuple[list[Finding], list[Finding], list[Borne]]:
    """Return findings that nobody bears, those that an exception bears, and exceptions that bear nothing."""
    borne = [finding for finding in findings if any(one.covers(finding) for one in exceptions)]
    idle = [one for one in exceptions if not any(one.covers(finding) for finding in findings)]
    return [finding for finding in findings if finding not in borne], borne, idle
