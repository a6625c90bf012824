"""Protocols that stages need and `resources` implements. No implementation lives here.

Each port has a contract suite under tests/contracts that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.specs.events import DeadLetter, Delivery, Event
    from platform_assets.specs.leases import Lease, LeaseAsk
    from platform_assets.specs.log_counts import LogCounts
    from platform_assets.specs.records import ArmFigures, Feature, TablePin, ViewTable
    from platform_assets.specs.rotation import Rotation
    from platform_assets.specs.spending import Asked, Entry, Month, Payer, Spending, Used
    from platform_assets.specs.subjects import Marks
    from platform_assets.specs.telemetry import Point


class Clock(Protocol):
    """Time of the data: windows, labels and cool-downs run on it. All times are UTC and naive."""

    def now(self, stream: str) -> datetime:
        """Return what time it is for this dataset (wall clock unless it was moved)."""

    def advance(self, stream: str, to: datetime) -> datetime:
        """Move this dataset's clock forward, never back; return where it stands."""


class Source(Protocol):
    """Rows of a dataset as they are known at a time."""

    def read(self, until: datetime | None) -> Iterator[pa.Table]:
        """Yield chunks of rows whose event is not after `until`, labels not known by then null. None: everything, as known at the end."""


class TableStore(Protocol):
    """Versioned tables. Versions are never changed once written."""

    def merge(self, table: str, rows: pa.Table, *, key: str) -> tuple[int, int]:
        """Insert new keys, replace changed rows, in one commit; nothing new makes no commit. Return (new, changed)."""

    def append(self, table: str, rows: pa.Table, *, key: str) -> int:
        """Append rows whose key is not there yet, in one commit; return how many."""

    def replace(self, table: str, rows: pa.Table) -> TablePin:
        """Make these rows the table's next version; equal content makes no commit."""

    def read(self, pin: TablePin, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Read exactly this version."""

    def pin(self, table: str) -> TablePin | None:
        """Return the newest version, or None where the table does not exist."""

    def location(self, table: str) -> str:
        """Return the path or URL under which delta readers open the table."""

    def tables(self) -> list[str]:
        """Return the names of all tables."""

    def search(self, table: str, marks: Marks, *, columns: Sequence[str]) -> pa.Table:
        """Return these columns, those that are there, as text, of every row that is meant in any version that can still be read."""

    def erase(self, table: str, marks: Marks) -> int:
        """Take the rows that are meant out of the table, and every version that held one with them; return how many were found.

        The newest version's other rows are the next version. Killed and done again, it comes to the same.
        """


class ArtifactStore(Protocol):
    """Content-addressed folders: a digest names the bytes, so what is there never changes."""

    def put(self, folder: Path) -> str:
        """Store a folder, atomically; return its digest (SHA-256 over names and contents)."""

    def path(self, digest: str) -> Path:
        """Return a local folder with exactly these contents; a missing or altered one raises ReleaseError."""

    def peek(self, digest: str) -> Path:
        """Return a local folder with what is there under this digest, altered or not; it may lack files."""

    def remember(self, fingerprint: str, digest: str, note: Mapping[str, Any]) -> None:
        """Record that work of this fingerprint gave this digest."""

    def recall(self, fingerprint: str) -> tuple[str, dict[str, Any]] | None:
        """Return digest and note of work done before, when its artefact is still whole."""

    def digests(self) -> list[str]:
        """Return the digests of all artefacts, whole or not."""

    def remove(self, digest: str) -> None:
        """Remove an artefact for good; one that is not there is no error."""


class Keys(Protocol):
    """A key service: data keys are wrapped under keys that never leave it, known by their ids."""

    def current(self) -> str:
        """Return the id of the key that wraps."""

    def ids(self) -> list[str]:
        """Return the ids of all keys, oldest first; none before the first use."""

    def wrap(self, data_key: bytes, *, context: bytes) -> tuple[str, bytes]:
        """Return the id of the key in use, and the data key wrapped under it, bound to `context`; the first key is made here."""

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the data key; SealError where its key is gone, or where wrapped key or context are other ones."""

    def add(self) -> str:
        """Make a key and use it from now on; the others go on unwrapping."""

    def forget(self, key_id: str) -> None:
        """Destroy a key, at once or when the service can; the one in use stays."""


class ReleaseStore(Protocol):
    """Releases at rest, signed and encrypted: a digest names the bytes of the release in the open."""

    def put(self, folder: Path) -> str:
        """Sign, encrypt and store a release that lies in the open; return its digest."""

    def open(self, digest: str) -> ReleaseFiles:
        """Return a release, verified and decrypted; SealError with the reason where it cannot be trusted or read."""

    def path(self, digest: str) -> Path:
        """Return the folder in which a release lies, sealed; ReleaseError where it is not here."""

    def digests(self) -> list[str]:
        """Return the digests of all releases."""

    def key_ids(self, digest: str) -> set[str]:
        """Return the ids of the keys that a release's data keys are wrapped under."""

    def rotate(self) -> Rotation:
        """Wrap every data key under a new key, without encrypting anything anew; at every moment each release can be read."""


class TrainingMirror(Protocol):
    """Where a training under way is kept beyond the machine that it runs on. A folder's name is the training's."""

    def bring(self, root: Path) -> bool:
        """Lay down what is kept of a training whose folder is not here, whole or not at all; False where nothing is."""

    def keep(self, root: Path) -> None:
        """Bring what is kept up to date: whole checkpoints, how starts were made, what the trainer said; an outage stops nothing."""

    def drop(self, name: str) -> None:
        """Forget a training."""

    def sweep(self, *, older_than_seconds: float) -> list[str]:
        """Forget trainings of which nothing was written for so long; return their names."""


class FeatureStore(Protocol):
    """Feature views behind Feast: history for training, newest values online. Each view comes with the exact version of its table."""

    def apply(self, views: Sequence[ViewTable]) -> bool:
        """Register views; False, and nothing is written, where every one stands there as asked."""

    def materialise(self, view: ViewTable) -> int:
        """Bring online values up to the pinned table, newest row an entity; return how many entities changed: none for the same pin."""

    def online(self, view: ViewTable, entities: Sequence[str]) -> list[dict[str, Any] | None]:
        """Read newest values, in the order asked, by feature name (date: naive UTC datetime, seconds); None where an entity is unknown."""

    def forget(self, view: str, entities: Sequence[str]) -> int:
        """Remove the online values of these entities from a view (its Feast name); return how many were there."""

    def held(self, view: str, entities: Sequence[str]) -> int:
        """Count those of these entities that have online values in a view (its Feast name)."""

    def historical(self, entities: pa.Table, features: Sequence[Feature], *, views: Sequence[ViewTable], event_time: str) -> pa.Table:
        """Point-in-time join: a column a feature, row for row with `entities`: the newest value not after the event time, or null."""


class ModelRegistry(Protocol):
    """Experiment log and registry; aliases are champion and challenger."""

    def start_training(self, model: str, tags: Mapping[str, str]) -> str:
        """Open the run of a training that has begun; return its run id."""

    def log_live(self, run_id: str, points: Sequence[Point]) -> None:
        """Log figures of a run that is open; what cannot be logged is lost and never stops the caller."""

    def log_training(
        self,
        model: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
        *,
        run_id: str | None = None,
    ) -> str:
        """Log one training that is done, in the run opened for it, else in a new one; close it and return its run id."""

    def drop_training(self, run_id: str) -> None:
        """Close the run of a training that came to nothing, as failed."""

    def register(self, model: str, bundle: Path, *, run_id: str, tags: Mapping[str, str]) -> str:
        """Register a bundle as a model version; the same digest again returns the same version."""

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None removes it."""

    def alias(self, model: str, alias: str) -> str | None:
        """Return the version an alias points at."""


class LiveMetrics(Protocol):
    """Where a monitoring system picks up gauges of what is running now."""

    def show(self, name: str, text: str) -> None:
        """Show this text (Prometheus' format) under this name, whole or not at all; what cannot be shown never stops the caller."""

    def withdraw(self, name: str) -> None:
        """Show nothing more under this name."""


class ServingTarget(Protocol):
    """Where releases answer requests."""

    def load(self, model: str, digest: str) -> None:
        """Load, warm and check a release beside what is live; a bad one raises ServingError and changes nothing."""

    def set_traffic(self, model: str, *, live: str, challenger: str | None = None, mode: str = "live", percent: int = 0) -> None:
        """Set who answers: `live` digest; a challenger in mode `shadow`, or `canary` with its percent of requests."""

    def status(self, model: str) -> dict[str, Any]:
        """Return live, challenger, mode, percent, arms (ArmFigures by digest), compared rows and disagreements."""

    def arms(self, model: str) -> dict[str, ArmFigures]:
        """Return figures since the last change of traffic, by digest."""

    def rotate_log(self, model: str) -> list[Path]:
        """Close the current segment of the prediction log; return all closed segments, oldest first."""

    def log_counts(self, model: str) -> LogCounts:
        """Return how many rows were answered since the log began, and what became of them."""


class AuditLog(Protocol):
    """Append-only, hash-chained: who did what to which version, when and why."""

    def append(self, action: str, *, subject: str, actor: str, detail: Mapping[str, Any]) -> str:
        """Write one entry; return its hash."""

    def entries(self, *, subject: str | None = None, after: int = 0, most: int | None = None) -> list[dict[str, Any]]:
        """Return entries in order, of one subject where it is given; those after number `after`, `most` of them."""

    def verify(self) -> int:
        """Walk the chain and check who vouches for it; return its length, or raise StateError naming the first entry that does not fit."""

    def checkpoint(self) -> dict[str, Any]:
        """Return length, newest hash and their signature, as JSON, to be kept elsewhere."""

    def check_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise StateError where the log is not a continuation of what the checkpoint was taken of."""


class EventQueue(Protocol):
    """Events of one direction, each handed out to every group of consumers at least once and kept until that group answers for it."""

    def publish(self, event: Event) -> bool:
        """Put an event in, on disk before the call returns; False where this source has sent this id before."""

    def claim(self, group: str, *, most: int = 100, lease_seconds: float = 60.0) -> list[Delivery]:
        """Hand out what waits, oldest first. What is not answered for within the lease is handed out again, MOST_ATTEMPTS times in all."""

    def acknowledge(self, group: str, tokens: Sequence[str]) -> None:
        """Answer for deliveries: they are done and never come again. An unknown token is left alone."""

    def bury(self, group: str, token: str, why: str) -> None:
        """Put a delivery among the dead letters of the group, in one step."""

    def dead(self, group: str) -> list[DeadLetter]:
        """List the dead letters, oldest first."""

    def replay(self, group: str, token: str) -> None:
        """Hand a dead letter out again, its attempts counted anew. EventError where there is none of that token."""

    def waiting(self, group: str) -> int:
        """Count what the group has neither acknowledged nor buried."""

    def erase(self, texts: Sequence[str]) -> int:
        """Remove every event, waiting, handed out or dead, in which one of these texts stands as a value; return how many."""


class Meter(Protocol):
    """What a measured step may say of itself while it runs."""

    def use(self, asked: Asked) -> None:
        """Go on with other resources: what came before is closed at its own price, as failed."""

    def add(self, *, wall_seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        """Count time that was spent outside of this process."""

    def take_over(self, run_id: str, *, until: float, cpu_seconds: float = 0.0) -> None:
        """Count what went on after an earlier run's process died, up to `until` (epoch seconds), where its own entry does not."""

    def waiting(self) -> AbstractContextManager[None]:
        """Stop the clock while the step waits for what it will hold."""

    def saw(self, used: Used) -> None:
        """Note what was really used."""

    def reused(self) -> None:
        """Say that the work had been done before."""

    def beat(self) -> None:
        """Write the figures so far, as happens by itself every few seconds."""


class Ledger(Protocol):
    """What every step asked for, used and cost, and what was promised to admitted runs."""

    def measure(
        self, *, model: str, stage: str, run_id: str, tenant: str = "", asked: Asked | None = None
    ) -> AbstractContextManager[Meter]:
        """Measure what happens inside, children included; a row stands after a moment and is kept up to date."""

    def totals(self, *, since: float = 0.0) -> list[dict[str, Any]]:
        """Return rows {model, stage, runs, wall_seconds, cpu_seconds, gpu_seconds, price_aed}."""

    def entries(self, month: Month) -> list[Entry]:
        """Return every step that began in this month, oldest first."""

    def history(self, model: str, *, last: int) -> list[Entry]:
        """Return the `last` entries of each stage of a model that did their work to its end, newest first."""

    def spending(self, month: Month) -> Spending:
        """Return what is spent in this month, and promised to runs that were admitted and not settled."""

    def promise(self, run_id: str, *, month: Month, judge: Callable[[Spending], Mapping[Payer, float] | None]) -> None:
        """Let `judge` decide on what all others spent and were promised, nobody deciding beside it; what it returns is promised."""

    def promised_runs(self) -> dict[str, float]:
        """Return the runs with a promise, and when they got it (epoch seconds)."""

    def settle(self, run_id: str) -> None:
        """Forget what was promised to a run: it ended."""


class LeaseTable(Protocol):
    """Leases on slots of a pool (GPUs), shared by all processes that open the same table."""

    dsn: str

    def take(self, ask: LeaseAsk, *, seconds: float = ...) -> Lease | None:
        """Give all the slots asked for, or None and a place in the queue, kept for `seconds`; LeaseError for what can never be given."""

    def withdraw(self, ticket: str, *, pool: str) -> None:
        """Leave the queue."""

    def renew(self, token: str, *, seconds: float = ...) -> bool:
        """Give a lease its whole time again; False where it is gone."""

    def release(self, token: str, *, pool: str) -> bool:
        """Give the slots back; False where the lease is gone already."""

    def held(self, pool: str) -> list[Lease]:
        """Return the leases in force."""

    def waiting(self, pool: str) -> list[str]:
        """Return the holders-to-be in the queue, in turn."""


class Notifier(Protocol):
    """Tells people."""

    def notify(self, title: str, text: str, *, severity: str, key: str = "") -> None:
        """Take one message to be told (severity info, warning or error); no receiver, slow or dead, ever holds up or stops the caller.

        `key` names what it is about: while that is not acknowledged nobody is told of it again before a reminder is due, and never after.
        """


class Watcher(Protocol):
    """Someone who looks on while steps run in this process: a terminal's progress bars."""

    def step(self, name: str) -> None:
        """A step began."""

    def note(self, text: str) -> None:
        """Something within the step is worth showing."""
