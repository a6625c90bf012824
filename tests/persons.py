"""Two persons of two bookings each, in every place of a home that holds persons."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from pipeline.tiny import DATASET, MODEL

from platform_assets import keys
from platform_assets.specs.events import Event
from platform_assets.specs.records import ViewTable
from platform_assets.stages.governance.protection import protect
from resources.parts import Parts

PERSON, OTHER = "guest-0042", "guest-0043"


def fill(parts: Parts) -> None:
    """Put them there."""
    whom = [PERSON, OTHER, PERSON, OTHER]
    rows = pa.table({
        "booking_id": ["bk#1", "bk#2", "bk#3", "bk#4"], "booking_date": pa.array([datetime(2024, 1, day) for day in (1, 2, 3, 4)], pa.timestamp("us")),
        "lead_time": [1, 2, 3, 4], "guest_id": whom, "guest_email": [f"{one}@example.test" for one in whom],
    })  # fmt: skip
    names = {state: keys.table_name(keys.dataset_key(DATASET, state)) for state in keys.DATASET_STATES}
    parts.tables.merge(names["ingested"], rows.slice(0, 2), key="booking_id")
    parts.tables.merge(names["ingested"], rows, key="booking_id")
    parts.tables.replace(names["validated"], rows.slice(0, 3))
    protected = protect(rows, columns=parts.catalogue.datasets[DATASET].columns, key=parts.pseudonym_key)
    parts.tables.replace(names["quarantined"], protected.slice(2, 1))
    parts.tables.replace(names["protected"], protected)
    view = pa.table({"booking_id": rows["booking_id"], "event_timestamp": rows["booking_date"], "lead_time": pa.array([1.0, 2, 3, 4])})
    pin = parts.tables.replace(keys.table_name(keys.features_key(DATASET, "booking")), view)
    online = ViewTable(keys.view_name(DATASET, "booking"), "booking_id", {"lead_time": "numeric"}, pin)
    parts.features._values.write_view(online, view)
    log = pa.table({"prediction_id": ["p1", "p2"], "key": ["bk#1", "bk#2"], "inputs": ["{}", "{}"]})
    parts.tables.append(keys.table_name(keys.model_key(MODEL, "production_log")), log, key="prediction_id")
    for number, person in enumerate((PERSON, OTHER)):
        data = {"model": MODEL, "why": person}
        parts.inbox.publish(Event(id=f"n{number}", source="/t", type="falaj.retraining.asked", time=datetime.now(UTC), data=data))
