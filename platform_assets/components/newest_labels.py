"""The newest labelled rows of a model: the holdout of its training set, and what production answered and learnt the outcome of since."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from platform_assets import keys
from platform_assets.components.retraining_evidence import read_feed
from platform_assets.specs.looks import Tally
from platform_assets.specs.records import DriftPointer

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.components.step import Step
    from platform_assets.specs.model import ModelSpec
    from platform_assets.specs.records import Release, TablePin

MOST_ROWS = 20_000  # newest ones; more narrow no interval that matters
_LOOK_SECONDS = 5.0  # between two looks at the production log while a rollout lasts


def read_newest_labels(model: ModelSpec, step: Step, *, release: Release) -> pa.Table:
    """Return features and target of labelled rows that the release was not trained on, oldest first, at most MOST_ROWS.

    What a broken feed sent is not among them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    holdout = pq.read_table(step.parts.artefacts.path(release.training_set) / "holdout")
    pin = step.parts.tables.pin(_log_table(model))
    since = _labelled_since(step, release=release, pin=pin) if pin is not None else None
    if since is not None and since.num_rows:
        shared = [name for name in holdout.column_names if name in since.column_names]
        fields = [holdout.schema.field(name) for name in shared]
        holdout = pa.concat_tables([holdout, since.select(shared).cast(pa.schema(fields))], promote_options="default")
    return holdout.slice(max(0, holdout.num_rows - MOST_ROWS))


def watch_new_labels(
    model: ModelSpec, step: Step, *, release: Release, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], Tally]:
    """Return a function that compares the release with the live one on rows whose label came after its training set was cut.

    It looks at the production log every few seconds, and scores again only where that has changed.
    """
    from platform_assets.stages.release.scoring import count_worse

    parts = step.parts
    champion = parts.serving.status(model.name)["live"]
    known: TablePin | None = None
    found, looked = Tally(), float("-inf")

    def count() -> Tally:
        nonlocal known, found, looked
        if champion is None or monotonic() - looked < _LOOK_SECONDS:
            return found
        looked = monotonic()
        pin = parts.tables.pin(_log_table(model))
        if pin is not None and pin != known:
            known = pin
            rows = _labelled_since(step, release=release, pin=pin)
            found = count_worse(parts.releases.open(champion), parts.releases.open(release.digest), rows)
        return found

    return count


def _log_table(model: ModelSpec) -> str:
    return keys.table_name(keys.model_key(model.name, "production_log"))


def _labelled_since(step: Step, *, release: Release, pin: TablePin) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    from platform_assets.stages.monitoring.feed_report import faulty_keys
    from platform_assets.stages.monitoring.log import labelled_after
    from platform_assets.stages.release.scoring import read_schema

    parts = step.parts
    log = parts.tables.read(pin)
    faulty = faulty_keys(read_feed(parts, step.find(keys.model_key(release.model, "drift_report"), DriftPointer)))
    if faulty:
        log = log.filter(pc.invert(pc.is_in(log["key"], value_set=pa.array(sorted(faulty), pa.string()))))
    schema = read_schema(parts.releases.open(release.digest))
    return labelled_after(log, schema=schema, after=_last_event(parts.artefacts.path(release.training_set), schema.event_time))


def _last_event(training_set: Path, event_time: str) -> datetime | None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    newest: datetime | None = pc.max(pq.read_table(training_set / "holdout", columns=[event_time])[event_time]).as_py()
    return newest
