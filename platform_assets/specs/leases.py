"""What is said to and by a table of leases: who asks for how many slots of a pool, and which slots were given."""

from __future__ import annotations

from dataclasses import dataclass

GPU_POOL = "gpus"


@dataclass(frozen=True)
class LeaseAsk:
    """A wish for `slots` of a pool that has `capacity`, all or nothing.

    `ticket` names the asker's place in the queue and becomes the lease's token, so asking again never gives twice. `quota` is how many
    slots this tenant may hold under this profile. A point of `priority` is worth a minute's head start in the queue.
    """

    ticket: str
    pool: str
    slots: int
    capacity: int
    tenant: str
    profile: str
    quota: int | None = None
    priority: int = 0
    holder: str = ""


@dataclass(frozen=True)
class Lease:
    """Slots that were given: their numbers count from 0 and are devices where the pool is one machine's."""

    token: str
    pool: str
    slots: tuple[int, ...]
    tenant: str
    profile: str
    holder: str
