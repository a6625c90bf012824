"""Which run comes first: earliest virtual deadline first, so that a nearer deadline overtakes and nobody waits for ever.

A run's virtual deadline is fixed when it is asked for and lies at most the longest wait of its impact ahead. Whoever comes after that
moment has a later one, whatever was declared: so later arrivals overtake for a bounded time only (Liu and Layland, 1973, order of EDF).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from platform_assets.specs.compute import Impact, SlaSpec

LONGEST_WAIT: Mapping[Impact, timedelta] = MappingProxyType(
    {"critical": timedelta(minutes=10), "high": timedelta(hours=1), "normal": timedelta(hours=6), "low": timedelta(hours=24)}
)
_HORIZON = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())


def virtual_deadline(asked_at: float, *, sla: SlaSpec) -> float:
    """Return the moment, in epoch seconds, from which no later arrival overtakes this run."""
    wait = LONGEST_WAIT[sla.impact]
    return asked_at + min(sla.deadline or wait, wait).total_seconds()


def queue_priority(asked_at: float, *, slas: Iterable[SlaSpec]) -> int:
    """Return the integer that Dagster sorts its queue by, larger first; above nil until 2100, since a run without one counts as nil.

    A run for several models is as urgent as its most urgent one; one for none is a normal one.
    """
    nearest = min((virtual_deadline(asked_at, sla=sla) for sla in slas), default=virtual_deadline(asked_at, sla=SlaSpec()))
    return _HORIZON - int(nearest)


def head_start(priority: int, *, at: float) -> int:
    """Return a queue priority as minutes of head start at a moment: minus the time left to the virtual deadline.

    Whoever queues elsewhere by the time of asking, with this head start, queues in the same order; one without a priority is a normal one.
    """
    return round((at - (_HORIZON - (priority if priority > 0 else queue_priority(at, slas=())))) / 60)
