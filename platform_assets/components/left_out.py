"""Rows of production that may not be learnt from: windows at fault, and what no feed check has judged yet. Judging is monitoring's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from platform_assets import keys
from platform_assets.components.retraining_evidence import read_feed
from platform_assets.errors import ServingError
from platform_assets.specs.records import DriftPointer

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.components.step import Step
    from platform_assets.specs.model import ModelSpec
    from resources.parts import Parts

LEFT_OUT_FILE = "left_out.json"
_COLUMNS = ("key", "event_time", "time", "prediction_id")


@dataclass(frozen=True)
class LeftOut:
    """Keys of rows that a training set leaves out, by the reason."""

    faulty: frozenset[str] = frozenset()
    unjudged: frozenset[str] = frozenset()

    @property
    def keys(self) -> list[str]:
        """All of them, in order."""
        return sorted(self.faulty | self.unjudged)

    def among(self, rows: pa.Table, key: str) -> LeftOut:
        """Return those that stand in rows (key, then label) with a known label: only these would be learnt from."""
        import pyarrow as pa
        import pyarrow.compute as pc

        label = next(name for name in rows.column_names if name != key)
        learnt = frozenset(rows.filter(pc.is_valid(rows[label]))[key].cast(pa.string()).to_pylist())
        return LeftOut(self.faulty & learnt, self.unjudged & learnt)


def find_left_out(model: ModelSpec, step: Step) -> LeftOut:
    """Return what production was asked and may not be learnt from now; a row that the model was never asked about is none of it."""
    from platform_assets.stages.monitoring.feed_report import faulty_keys, unjudged_keys

    parts = step.parts
    waiting = _answered_and_not_collected(model, parts)  # read before the log: what leaves the segments then stands in the log
    feed = read_feed(parts, step.find(keys.model_key(model.name, "drift_report"), DriftPointer))
    pin = parts.tables.pin(keys.table_name(keys.model_key(model.name, "production_log")))
    if pin is None:
        return LeftOut(unjudged=waiting)
    log = parts.tables.read(pin, columns=list(_COLUMNS))
    unjudged = waiting | unjudged_keys(feed, log=log, window_rows=model.monitoring.window_rows)
    return LeftOut(faulty_keys(feed), unjudged)


def _answered_and_not_collected(model: ModelSpec, parts: Parts) -> frozenset[str]:
    """Return the keys in the server's closed segments; none where no server runs or it knows no such model."""
    from platform_assets.stages.monitoring.log import parse_segments

    try:
        segments = parts.serving.rotate_log(model.name)
    except ServingError:
        return frozenset()
    found: set[str] = set()
    for segment in segments:
        try:
            found.update(key for key in parse_segments([segment])["key"].to_pylist() if key is not None)
        except FileNotFoundError:  # the monitor has just written it into the log
            continue
    return frozenset(found)
