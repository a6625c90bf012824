import numpy as np
import pyarrow as pa
import pytest
from drifting import drifting_table

from platform_assets.main_job.replay import Baselines, compare, play
from platform_assets.specs.model import PayoffSpec
from platform_assets.stages.replay.picture import draw_replay
from platform_assets.stages.replay.stream import open_stream

WINDOW = 250  # rows, of 8,000


def replayed(kind, target="binary", **spec):
    return compare(open_stream(drifting_table(kind, target=target), time="at", target="y", window_rows=WINDOW), PayoffSpec(**spec))


@pytest.mark.parametrize(("kind", "target"), [("abrupt", "binary"), ("gradual", "multiclass"), ("correlation", "regression")])
def test_a_known_drift_is_followed_within_the_budget(kind, target):
    value = replayed(kind, target)
    assert value["kind"] == target
    assert value["gain"] >= 0.85
    trained = value["cpu_seconds"].get("retrain", 0.0) / value["cpu_seconds"]["always"]
    assert trained <= 0.3
    assert value["cost"] == pytest.approx(
        sum(s for what, s in value["cpu_seconds"].items() if what != "always") / value["cpu_seconds"]["always"], abs=0.01
    )


def test_nothing_to_win_is_said_and_not_divided_by():
    value = replayed("stable")
    assert value["gain"] is None or value["score_always"] - value["score_never"] > 0.002
    assert value["score"] >= value["score_never"] - 0.01


def test_no_model_sees_a_window_before_it_has_answered_it():
    table = drifting_table("abrupt", rows=6000)
    stream = open_stream(table, time="at", target="y", window_rows=WINDOW)
    spoilt = open_stream(table, time="at", target="y", window_rows=WINDOW)
    spoilt.targets[-2 * stream.window_rows :] = 1 - spoilt.targets[-2 * stream.window_rows :]
    spec = PayoffSpec(refresh_keeps=None, budget=1.0)  # without CPU seconds in a decision
    one, two = (play(Baselines(s), spec).scores for s in (stream, spoilt))
    assert one[:-2] == two[:-2]
    assert one[-2] == pytest.approx(1 - two[-2])


def test_a_retraining_that_did_not_help_leaves_the_champion():
    stream = open_stream(drifting_table("stable", rows=6000), time="at", target="y", window_rows=WINDOW)
    played = play(Baselines(stream), PayoffSpec(refresh_keeps=None, least_gain=0.0, budget=1.0))
    assert any(past.gain is not None and past.gain <= 0 for past in played.ledger)
    assert np.mean(played.scores) >= Baselines(stream).every(1)[0].mean()


def test_every_decision_is_in_the_figures_and_in_the_picture():
    value = replayed("abrupt")
    decisions = [row["decision"] for row in value["by_window"]]
    assert decisions.count("retrain") == value["trainings"]
    assert decisions.count("refresh") == value["refreshes"]
    assert all(row["why"] for row in value["by_window"])
    assert draw_replay(value).startswith(b"\x89PNG")


@pytest.mark.parametrize("broken", ["stuck", "sent twice", "unit"])
def test_a_broken_feed_is_told_and_never_learnt_from(broken):
    streams = [open_stream(drifting_table("stable"), time="at", target="y", window_rows=WINDOW) for _ in range(2)]
    for stream, wrong in zip(streams, (False, True), strict=True):
        values, targets = stream.rows(15)
        if broken == "stuck":
            values[:, 0] = values[0, 0]
        elif broken == "sent twice":
            values[len(values) // 2 :] = values[: (len(values) + 1) // 2][: len(values) - len(values) // 2]
        else:
            values[::25, 0] = 1000 * np.sign(values[::25, 0])
        if wrong:
            targets[:] = 1 - targets  # whoever learns from this window answers otherwise afterwards
    one, two = (play(Baselines(stream), PayoffSpec(refresh_keeps=None, budget=1.0, least_gain=0.0)) for stream in streams)
    assert list(one.faulty) == [15]
    assert [choice.how for choice in one.choices] == [choice.how for choice in two.choices]
    place = 15 - streams[0].history_windows
    assert one.choices[place].sentence.startswith("data at fault")
    assert one.scores[place + 1 :] == two.scores[place + 1 :]
    assert "retrain" in [choice.how for choice in one.choices[place + 1 : place + 6]]


NOISE = np.random.default_rng(0)
X = NOISE.normal(size=1000)
LATE = np.arange(1000) >= 500


@pytest.mark.parametrize(
    "columns",
    [
        {"x": X, "y": np.where(LATE, NOISE.integers(0, 2, 1000), 0)},
        {"x": X, "y": np.where(LATE, NOISE.integers(0, 3, 1000), NOISE.integers(0, 2, 1000))},
        {"x": X, "y": np.where(LATE, X, 3.5)},
        {"x": np.full(1000, np.nan), "z": np.ones(1000), "y": NOISE.integers(0, 2, 1000)},
    ],
    ids=["a class that comes late", "a third class that comes late", "an amount that stood still", "nothing to learn from"],
)
def test_a_poor_history_is_replayed_to_its_end(columns):
    value = compare(open_stream(pa.table({"t": np.arange(1000), **columns}), time="t", target="y"), PayoffSpec())
    assert len(value["by_window"]) == value["windows"] - value["history_windows"]
    assert np.isfinite([row["score"] for row in value["by_window"]]).all()
