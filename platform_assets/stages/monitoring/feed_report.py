"""The feed of a model in production, window after window: a release carries what a healthy feed showed, and each window is held against it.

Judged before drift is: a broken feed is not drift. The keys of its rows are kept, so that no training set reads them.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.specs.feed import FeedFault, FeedReport
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import DriftReport, FeatureSchema
from platform_assets.stages.monitoring.feed import FeedPast, find_faults, remember_feed
from platform_assets.stages.monitoring.log import cut_windows, end_of, in_order, number_rows, unpack_inputs

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.specs.model import ModelSpec

FEED_FILE = "feed.json"
_DAY = np.timedelta64(1, "D")
_NAMED = 3


def profile_feed(model: ModelSpec, *, data_dir: Path) -> str:
    """Summarise the rows of a training set folder (shards, schema.json), in order of event, as a healthy feed; return canonical JSON."""
    import pyarrow.parquet as pq

    schema = read_record(FeatureSchema, (data_dir / "schema.json").read_text(encoding="utf-8"))
    rows = pq.read_table(data_dir / "train").sort_by([(schema.event_time, "ascending")])
    columns, categories = feed_columns(rows, schema=schema)
    return to_json(remember_feed(columns, window_rows=min(model.monitoring.window_rows, rows.num_rows), categories=categories))


def extend_feed(previous: FeedReport | None, *, log: pa.Table, bundle: ReleaseFiles, model: ModelSpec) -> FeedReport:
    """Hold every full window that is not in `previous` yet against the live release's healthy feed.

    `bundle`: the release that is live. A release of before this check has no healthy feed: nothing is found then.
    """
    import pyarrow.compute as pc

    known = previous or FeedReport()
    past = read_record(FeedPast, bundle[FEED_FILE]) if FEED_FILE in bundle.files else None
    schema = read_record(FeatureSchema, bundle["schema.json"])
    faults, ends = list(known.faults), list(known.ends)
    newest = str(pc.max(log["time"]).as_py()) if log.num_rows else ""
    for window, rows in cut_windows(log, window_rows=model.monitoring.window_rows, feed=known):
        if window.index < known.windows:
            continue
        ends.append(end_of(rows))
        found = find_faults(past, feed_columns(unpack_inputs(rows, schema=schema), schema=schema)[0]) if past else ()
        if found:
            place = f"window {window.index} (rows {window.first_row} to {window.last_row})"
            told = "; ".join(fault.sentence for fault in found[:_NAMED])
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            faults.append(
                FeedFault(
                    window=window.index,
                    first_row=window.first_row,
                    last_row=window.last_row,
                    first_event=str(rows["event_time"][0].as_py()),
                    last_event=str(rows["event_time"][-1].as_py()),
                    kinds=tuple(dict.fromkeys(fault.kind for fault in found)),
                    sentence=f"{place}: the feed is at fault, {told}{more}",
                    keys=tuple(key for key in rows["key"].to_pylist() if key is not None),
                )
            )
    new = len(ends) - len(known.ends)
    return FeedReport(known.windows + new, tuple(faults), (*known.seen_until, *[newest] * new), tuple(ends))


def faulty_keys(feed: FeedReport) -> frozenset[str]:
    """Return the keys of all rows in windows whose feed was at fault."""
    return frozenset(key for fault in feed.faults for key in fault.keys)


def unjudged_keys(feed: FeedReport, *, log: pa.Table, window_rows: int) -> frozenset[str]:
    """Return the keys of logged rows (key, event_time, time, prediction_id) whose feed nobody has judged.

    They stand behind the last judged window, or came in late, when those around them had been judged.
    """
    ordered = in_order(log)
    unjudged = number_rows(ordered, window_rows=window_rows, feed=feed) < 0
    return frozenset(key for key in ordered["key"].filter(unjudged).to_pylist() if key is not None)


def silence_faults(report: DriftReport, feed: FeedReport) -> DriftReport:
    """Return a drift report in which windows of a broken feed are no drift, and say so; nothing is estimated of them."""
    faults = {fault.window: fault.sentence for fault in feed.faults}
    windows = (
        replace(window, drifted=False, evidence=faults[window.window]) if window.window in faults else window for window in report.windows
    )
    return replace(report, windows=tuple(windows), estimates=tuple(one for one in report.estimates if one.window not in faults))


def feed_columns(rows: pa.Table, *, schema: FeatureSchema) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return what the feed itself sent as float64 columns (NaN is missing), and which of them are numbered words.

    Features of other entities are looked up, not sent: where a model has none of its own, they stand in. A date is its distance in
    days from the event; an image its brightness and contrast.
    """
    own = [feature for feature in schema.features if feature.entity == schema.key] or list(schema.features)
    columns: dict[str, np.ndarray] = {}
    words = []
    for feature in own:
        values = rows[feature.name]
        if feature.kind in ("category", "text"):
            columns[feature.name] = _number_words(values)
            words.append(feature.name)
        elif feature.kind == "image":
            pixels = np.asarray(values.combine_chunks().flatten().to_numpy(zero_copy_only=False), np.float64).reshape(-1, feature.size)
            columns[f"{feature.name} brightness"], columns[f"{feature.name} contrast"] = pixels.mean(axis=1), pixels.std(axis=1)
        elif feature.kind == "date":
            moments = (array.to_numpy(zero_copy_only=False).astype("datetime64[us]") for array in (values, rows[schema.event_time]))
            date, event = moments
            columns[feature.name] = (date - event) / _DAY
        else:
            columns[feature.name] = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return {name: np.where(np.isnan(values), np.nan, values) for name, values in columns.items()}, tuple(words)  # one NaN, bit for bit


def _number_words(column: pa.ChunkedArray) -> np.ndarray:
    coded = column.combine_chunks().dictionary_encode()
    numbers = np.array([float(zlib.crc32(word.encode())) for word in coded.dictionary.to_pylist()] or [np.nan])
    places = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.where(places < 0, np.nan, numbers[places])
