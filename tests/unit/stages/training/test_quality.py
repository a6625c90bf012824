"""The shipped hotel model, as declared, on the first year of the real hotels: not behind tuned trees."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from platform_assets.networks.plans import TrainingPlan
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.evaluation.baseline import fit_baseline
from platform_assets.stages.training.work import train
from tests.unit.networks.tiny import Silent, write_set

CATEGORIES = (
    "hotel", "meal", "country", "market_segment", "distribution_channel", "reserved_room_type", "deposit_type", "agent", "customer_type",
)  # fmt: skip
NUMBERS = (
    "lead_time", "stays_in_weekend_nights", "stays_in_week_nights", "adults", "children", "babies", "is_repeated_guest", "previous_cancellations",
    "previous_bookings_not_canceled", "adr", "total_of_special_requests",
)  # fmt: skip


def _first_year(path) -> pa.Table:
    table = pq.read_table(path, columns=[*CATEGORIES, *NUMBERS, "arrival_date", "booking_date", "is_canceled"])
    until = np.datetime64(pc.min(table["arrival_date"]).as_py(), "us") + np.timedelta64(365, "D")
    known = (table["arrival_date"].to_numpy() <= until) & (table["booking_date"].to_numpy() <= until)
    history = table.filter(pa.array(known))
    history = history.take(pa.array(np.argsort(history["booking_date"].to_numpy(), kind="stable")))
    columns = {name: pc.cast(history[name], pa.string()) for name in (*CATEGORIES, "is_canceled")}
    columns |= {name: pc.cast(history[name], pa.float64()) for name in NUMBERS}
    return pa.table({**columns, "arrival_date": history["arrival_date"]})


@pytest.mark.slow
@pytest.mark.real_data
def test_the_hotel_teacher_is_at_most_a_hundredth_behind_tuned_trees(real_hotels, checkout, tmp_path):
    features = [Feature(name, "category", "booking", "booking_id") for name in CATEGORIES]
    features += [Feature(name, "numeric", "booking", "booking_id") for name in NUMBERS]
    features.append(Feature("arrival_date", "date", "booking", "booking_id"))
    schema = FeatureSchema(tuple(features), "is_canceled", ("0", "1"), "booking_id", "booking_date")
    data = write_set(tmp_path / "data", _first_year(real_hotels), schema, train=0.7)  # the declared split
    declared = yaml.safe_load((checkout / "platform_assets/defs/models/hotel_cancellations/defs.yaml").read_text())["attributes"]
    result = train(data, plan=TrainingPlan(kind="binary", **declared["training"]), out=tmp_path / "out", warm=None, report=Silent())
    baseline = fit_baseline(data, kind="binary")
    assert result.holdout["auroc"] >= baseline.holdout["auroc"] - 0.01
    assert result.parameters < 40_000
