"""Drift on the real hotel bookings: history is the first year of arrivals, live is what was booked after it."""

from datetime import timedelta

import numpy as np
import pytest

from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.reference import build_reference

CATEGORIES = ("country", "deposit_type", "agent", "market_segment", "customer_type")
NUMBERS = ("lead_time", "adr", "total_of_special_requests", "previous_cancellations")
IMPORTANCE = dict.fromkeys(("country", "deposit_type", "agent", "lead_time", "total_of_special_requests"), 0.2)
ROWS = 2000
SPEC = MonitoringSpec(window_rows=ROWS)


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_hotels_drift_in_some_live_windows_not_in_all_and_their_own_past_is_mostly_quiet(real_hotels):
    import pandas as pd
    import pyarrow as pa
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = pd.read_parquet(real_hotels).sort_values("booking_date", kind="stable", ignore_index=True)
    first_day = frame.arrival_date.min() + timedelta(days=365)
    train, live = frame[frame.arrival_date <= first_day].iloc[:34_000], frame[frame.booking_date > first_day]
    codes = {name: {value: code for code, value in enumerate(train[name].value_counts().index[:250])} for name in CATEGORIES}

    def encode(part):
        return np.column_stack([*(part[name].map(codes[name]).astype(float) for name in CATEGORIES), part[list(NUMBERS)].to_numpy(float)])

    model = HistGradientBoostingClassifier(max_iter=60, random_state=7).fit(encode(train), train.is_canceled)
    features = [Feature(name, "category", "v", "id") for name in CATEGORIES] + [Feature(name, "numeric", "v", "id") for name in NUMBERS]
    schema = FeatureSchema(tuple(features), "is_canceled", ("0", "1"), "id", "booking_date")

    def table(part):
        texts = {name: pa.array(part[name].astype(object).where(part[name].notna(), None), pa.string()) for name in CATEGORIES}
        return pa.table({**texts, **{name: part[name].to_numpy(float) for name in NUMBERS}, "booking_date": pa.array(part.booking_date)})

    reference = build_reference(
        table(train), schema=schema, probabilities=model.predict_proba(encode(train)), spec=SPEC, importance=IMPORTANCE
    )

    def flags(rows):
        found = []
        for index in range(len(rows) // ROWS):
            part = rows.iloc[index * ROWS : (index + 1) * ROWS]
            window = Window(index, index * ROWS, (index + 1) * ROWS - 1, ("v1",))
            shares = model.predict_proba(encode(part))
            report = report_window(
                reference, table(part), window=window, schema=schema, probabilities=shares, importance=IMPORTANCE, spec=SPEC
            )
            found.append(report.drifted)
        return found

    past, future = flags(train), flags(live)
    assert not any(past[5:])  # the first blocks are selected: only stays booked years ahead reach back that far
    assert 0 < sum(future) < len(future)
