from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from platform_assets.specs.dataset import SimulatorSource
from platform_assets.stages.datasets.simulator import DRIFT_SEGMENT, FIRST_ARRIVAL, simulate


def source(**changes):
    return SimulatorSource(**{"kind": "simulator", "history_rows": 3_000, "live_rows": 2_000, "drift_after_rows": 800, **changes})


def to_bytes(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first = to_bytes(simulate.__wrapped__(source()))
    assert first == to_bytes(simulate.__wrapped__(source()))
    assert first != to_bytes(simulate.__wrapped__(source(seed=8)))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (50, 7, 3), (3_000, 2_000, 800)])
def test_exactly_the_live_rows_are_booked_after_the_history(sizes):
    history, live, drift = sizes
    rows = simulate(source(history_rows=history, live_rows=live, drift_after_rows=drift))
    assert rows.num_rows == history + live
    assert pc.min(rows["arrival_date"]).as_py() == FIRST_ARRIVAL
    after = pc.greater(rows["booking_date"], pa.scalar(FIRST_ARRIVAL + timedelta(days=365)))
    assert pc.sum(after).as_py() == live


def test_bookings_come_in_order_and_nobody_arrives_before_booking():
    rows = simulate(source())
    assert rows["booking_date"].to_pylist() == sorted(rows["booking_date"].to_pylist())
    assert pc.all(pc.greater_equal(rows["arrival_date"], rows["booking_date"])).as_py()
    assert len(set(rows["booking_id"].to_pylist())) == rows.num_rows


def test_the_new_channel_appears_with_the_scripted_drift_and_takes_a_large_share():
    segments = np.array(simulate(source())["market_segment"].to_pylist())
    assert DRIFT_SEGMENT not in segments[:3_800]
    assert (segments[3_800:] == DRIFT_SEGMENT).mean() > 0.5


def test_missing_values_and_guests_who_come_again_are_as_in_a_real_file():
    rows = simulate(source())
    assert 0 < rows["agent"].null_count < rows.num_rows / 2
    assert rows["country"].null_count > 0
    assert rows["market_segment"].null_count == 0
    assert 0 < pc.mean(rows["is_repeated_guest"]).as_py() < 0.5


def test_what_is_told_of_a_guest_s_past_had_arrived_before_the_booking():
    rows = simulate(source()).to_pydict()
    for i in range(0, 5_000, 97):
        past = [j for j in range(5_000) if rows["guest_id"][j] == rows["guest_id"][i] and rows["arrival_date"][j] < rows["booking_date"][i]]
        canceled = sum(rows["is_canceled"][j] for j in past)
        assert (rows["previous_cancellations"][i], rows["previous_bookings_not_canceled"][i]) == (canceled, len(past) - canceled)


@pytest.mark.slow
def test_a_model_from_before_the_drift_goes_wrong_and_one_trained_again_recovers():
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    rows = simulate(SimulatorSource(kind="simulator"))
    frame = rows.drop_columns(["booking_id", "guest_id", "guest_email", "booking_date", "is_canceled"]).to_pandas()
    frame["arrival_date"] = frame["arrival_date"].astype("int64")
    for name in frame.select_dtypes("object"):
        frame[name] = frame[name].astype("category")
    outcome, booked, arrived = (rows[name].to_numpy() for name in ("is_canceled", "booking_date", "arrival_date"))

    def trained_at(row):
        known = (np.arange(rows.num_rows) < row) & (arrived <= booked[row])
        return HistGradientBoostingClassifier(max_iter=80, categorical_features="from_dtype", random_state=0).fit(
            frame[known], outcome[known]
        )

    def auroc(model, first, last):
        return roc_auc_score(outcome[first:last], model.predict_proba(frame[first:last])[:, 1])

    stale, fresh = trained_at(30_000), trained_at(40_000)
    before = auroc(stale, 30_000, 38_000)
    assert before > 0.85
    assert auroc(stale, 40_000, 50_000) < before - 0.08
    assert auroc(fresh, 40_000, 50_000) > before - 0.05
