"""How often somebody may ask, and when an address that keeps failing has to wait. The clock is the caller's; nothing here sleeps."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_MOST_KNOWN = 10_000  # the longest unheard of is forgotten, so that strangers cannot fill the memory


@dataclass
class Buckets:
    """A token bucket for each name: `burst` at once, `per_second` in the long run."""

    per_second: float
    burst: float
    _known: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait_seconds(self, name: str, *, now: float) -> float:
        """Take one; return 0, or for how many seconds there is none left."""
        left, since = self._known.pop(name, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - since) * self.per_second)
        taken = left >= 1
        self._known[name] = (left - 1 if taken else left, now)
        _forget(self._known)
        return 0.0 if taken else (1 - left) / self.per_second


@dataclass
class Lockout:
    """After `most` failures within `window_seconds` an address waits; each further lock doubles, up to `longest_seconds`."""

    most: int = 10
    window_seconds: float = 60.0
    longest_seconds: float = 900.0
    _known: OrderedDict[str, _Failures] = field(default_factory=OrderedDict)

    def wait_seconds(self, address: str, *, now: float) -> float:
        """Return for how many seconds this address is still locked, 0 where it is not."""
        found = self._known.get(address)
        return max(0.0, found.locked_until - now) if found else 0.0

    def fail(self, address: str, *, now: float) -> bool:
        """Count a failed login or token; return whether this one locks the address."""
        found = self._known.pop(address, None)
        if found is None or now - found.since > self.window_seconds + self.longest_seconds:
            found = _Failures(since=now)
        elif now - found.since > self.window_seconds:
            found.since, found.count = now, 0
        found.count += 1
        locks = found.count >= self.most and now >= found.locked_until
        if locks:
            found.locked_until = now + min(self.longest_seconds, self.window_seconds * 2**found.locks)
            found.since, found.count, found.locks = found.locked_until, 0, found.locks + 1
        self._known[address] = found
        _forget(self._known)
        return locks


@dataclass
class _Failures:
    since: float
    count: int = 0
    locks: int = 0
    locked_until: float = 0.0


def _forget(known: OrderedDict) -> None:
    while len(known) > _MOST_KNOWN:
        known.popitem(last=False)
