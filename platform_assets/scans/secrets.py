"""Secrets that lie in files: what looks like one by the form that its issuer gives it, or is assigned as one."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from platform_assets.errors import ScanError
from platform_assets.scans.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MOST_BYTES = 8 << 20
# Forms as the issuers document them; each begins with letters that nobody writes by chance.
_FORMS = {
    "private-key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    "aws-access-key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "github-token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})\b"),
    "gitlab-token": re.compile(r"\bgl(?:pat|dt|rt|cbt)-[A-Za-z0-9_-]{20,}"),
    "slack-token": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,}"),
    "google-key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "stripe-key": re.compile(r"\b[rs]k_live_[0-9A-Za-z]{20,}"),
    "pypi-token": re.compile(r"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
    "vault-token": re.compile(r"\bhv[sb]\.[A-Za-z0-9_-]{24,}"),
    "json-web-token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password-in-address": re.compile(r"\b[a-z][a-z0-9+]{1,20}://[^\s/:@\"'{}$<>]+:[^\s/@\"'{}$<>]+@(?!localhost\b|127\.0\.0\.1\b)"),
}
_ASSIGNED = re.compile(
    r"(?i)(?:passw(?:or)?d|secret|token|api_?key|access_?key|private_?key|credential)[a-z0-9_]*[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/_=.-]{20,})(?![\w(\[])"
)
_LEAST_BITS = 3.7  # Shannon entropy a character: words and paths lie below, random base64 and long hex above


def find_secrets(root: Path, files: Sequence[str]) -> list[Finding]:
    """Return a finding for each rule and file, with the first line's number and never the secret itself."""
    found = []
    for name in files:
        try:
            content = (root / name).read_bytes()
        except OSError as error:
            raise ScanError(f"{name} cannot be read ({error.strerror}), so nobody can say that no secret lies in it.") from error
        if len(content) > _MOST_BYTES:
            raise ScanError(f"{name} has {len(content)} bytes, more than {_MOST_BYTES}: what is so large belongs outside the checkout.")
        first: dict[str, int] = {}
        for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
            for rule in _broken(line):
                first.setdefault(rule, number)
        found += [Finding(rule, name, "high", f"line {number} looks like one") for rule, number in sorted(first.items())]
    return found


def _broken(line: str) -> Iterator[str]:
    yield from (rule for rule, form in _FORMS.items() if form.search(line))
    if any(_is_random(match[1]) for match in _ASSIGNED.finditer(line)):
        yield "assigned-secret"


def _is_random(text: str) -> bool:
    kinds = sum(any(test(character) for character in text) for test in (str.isdigit, str.isalpha))
    bits = -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
    return kinds == 2 and bits >= _LEAST_BITS  # noqa: PLR2004  # digits and letters
