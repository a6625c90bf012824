"""What a rollout's record says of the retraining behind it, measured on real bundles, and how long the next one then has to wait."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_assets import keys
from platform_assets.components import newest_labels
from platform_assets.components.newest_labels import watch_new_labels
from platform_assets.components.retraining_history import ASKED, past_retrainings
from platform_assets.components.serving_steps import record_rollout
from platform_assets.specs.feed import FeedFault, FeedReport
from platform_assets.specs.looks import Look, LookLog, Tally
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import DriftPointer, Release, RolloutVerdict
from platform_assets.stages.monitoring.log import parse_segments
from platform_assets.stages.release.scoring import answer_rows
from platform_assets.stages.retraining.policy import cool_down_ends
from resources.settings import Home
from resources.testing.artifacts import MemoryArtifactStore
from resources.testing.keys import open_releases
from resources.testing.registry import MemoryRegistry
from resources.testing.serving import TINY_SCHEMA, write_tiny_release
from resources.testing.state import MemoryAuditLog, MemoryClock
from resources.testing.tables import MemoryTableStore

ASKED_AT = datetime(2026, 3, 1)
CUT = datetime(2026, 2, 1)
OLD_SEED, NEW_SEED = 1, 5  # two linear models that differ on about half of these rows
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict y for the tests", "dataset": "d", "features": {"views": ["v"]},
    "target": {"column": "y", "kind": "binary"}, "training": {"architecture": "tabular_mlp"}, "gates": {"auroc": ">= 0.5"},
    "retraining": {"cool_down": "10d"},
})  # fmt: skip


def bookings(count, *, seed=0):
    random = np.random.default_rng(seed)
    return pa.table({
        "lead_time": random.uniform(0, 300, count),
        "adr": random.uniform(20, 300, count),
        "arrival_date": pa.array([datetime(2016, 7, 1) + timedelta(days=int(day)) for day in random.integers(0, 300, count)], pa.timestamp("us")),
        "market_segment": random.choice(["Online TA", "Direct", "never seen"], count),
        "mean_adr_90d": random.uniform(50, 150, count),
        "booking_date": pa.array([CUT - timedelta(minutes=count - at) for at in range(count)], pa.timestamp("us")),
    })  # fmt: skip


class World:
    """Two real releases, a training set whose labels follow one of them, and the parts of a step around them."""

    def __init__(self, folder, *, right, rows=600, noise=0.1):
        self.folder = folder
        self.artefacts, self.audit, self.clock = MemoryArtifactStore(folder / "scratch"), MemoryAuditLog(), MemoryClock()
        self.tables, self.releases = MemoryTableStore(), open_releases(Home(folder / "home"))
        self.digests = {}
        for name, seed in (("old", OLD_SEED), ("new", NEW_SEED)):
            write_tiny_release(folder / name, model="m", seed=seed)
            self.digests[name] = self.releases.put(folder / name)
        self.noise = noise
        (folder / "training_set" / "holdout").mkdir(parents=True)
        pq.write_table(self.labelled(bookings(rows), right=right), folder / "training_set" / "holdout" / "0.parquet")
        self.digests["training_set"] = self.artefacts.put(folder / "training_set")
        asked = {"verdict_id": "v1", "trigger": "drift", "at": ASKED_AT.isoformat(), "why": "drifted"}
        self.audit.append(ASKED, subject="model/m", actor="policy", detail=asked)
        self.clock.advance("d", ASKED_AT + timedelta(days=1))

    def labelled(self, rows, *, right):
        """Give each row the class that `right` says, but for some noise that is the same for both."""
        given = rows.append_column(TINY_SCHEMA.target, pa.array(["0"] * rows.num_rows))
        said = answer_rows(self.releases.open(self.digests[right]), given)[1].argmax(axis=1)
        flipped = np.random.default_rng(9).random(rows.num_rows) < self.noise
        return rows.append_column(TINY_SCHEMA.target, pa.array([str(label) for label in np.where(flipped, 1 - said, said)]))

    def log(self, rows, *, right, label_share=1.0):
        """Put answered rows with their outcomes into the production log, later than the training set."""
        found = self.labelled(rows, right=right).to_pylist()
        lines = []
        for at, row in enumerate(found):
            inputs = {feature.name: row[feature.name] for feature in TINY_SCHEMA.features}
            lines.append({
                "prediction_id": f"r{at}:0", "request_id": f"r{at}", "model": "m", "version": "v", "digest": "d",
                "time": "2026-02-03T00:00:00", "key": f"b{at}", "event_time": (CUT + timedelta(minutes=1 + at)).isoformat(),
                "inputs": {**inputs, "arrival_date": row["arrival_date"].isoformat()}, "label": "0", "probabilities": [0.5, 0.5],
            })  # fmt: skip
        segment = self.folder / "1.jsonl"
        segment.write_text("".join(json.dumps(line) + "\n" for line in lines))
        table = parse_segments([segment])
        outcomes = [row[TINY_SCHEMA.target] if at < label_share * len(found) else None for at, row in enumerate(found)]
        filled = table.set_column(table.column_names.index("actual"), "actual", pa.array(outcomes, pa.string()))
        self.tables.replace(keys.table_name(keys.model_key("m", "production_log")), filled)

    @property
    def release(self):
        new = self.digests["new"]
        return Release("m", new[:12], new, "teacher", "2", {}, self.digests["training_set"])

    def step(self, records):
        live = self.live
        serving = SimpleNamespace(status=lambda _: {"live": live})
        parts = SimpleNamespace(
            artefacts=self.artefacts,
            releases=self.releases,
            audit=self.audit,
            clock=self.clock,
            registry=MemoryRegistry(),
            serving=serving,
            tables=self.tables,
        )
        parts.registry.set_alias = lambda *_: None
        context = SimpleNamespace(run=SimpleNamespace(run_id="1"))
        return SimpleNamespace(
            parts=parts,
            context=context,
            read=lambda key, _: records[tuple(key)],
            find=lambda key, _: records.get(tuple(key)),
        )

    live = ""

    @cached_property
    def records(self):
        return {}

    def fault(self, keys_at_fault):
        """Say that these rows came from a broken feed, as the drift report does."""
        folder = self.folder / "report"
        folder.mkdir()
        fault = FeedFault(0, 0, 1999, "a", "b", ("unit change",), "the feed is at fault", tuple(keys_at_fault))
        (folder / "feed.json").write_text(to_json(FeedReport(1, (fault,), ("2026-02-03",))))
        pointer = DriftPointer(self.artefacts.put(folder), 1, drifted=False, first_drifted_row=None, evidence="")
        self.records[tuple(keys.model_key("m", "drift_report"))] = pointer

    def record(self, *, outcome="live", before="old"):
        self.live = self.digests["new" if outcome == "live" else "old"]
        before = self.digests[before] if before else None
        looks = self.folder / "looks"
        looks.mkdir()
        one = Look("shadow", 1.0, 6.0, {"errors": Tally(20, 0)}, {"errors": -0.5}, {"errors": 0.1})
        (looks / "looks.json").write_text(to_json(LookLog({"errors": 0.01}, 0.05, 0.05, 2.0, 1.3, (one,))))
        verdict = RolloutVerdict(
            outcome, self.digests["new"][:12], before[:12] if before else None, self.live, (), None, None, 0.0, 0, "It took over.", before,
            self.artefacts.put(looks),
        )  # fmt: skip
        records = {tuple(keys.model_key("m", "release")): self.release, tuple(keys.model_key("m", "deployed")): verdict, **self.records}
        made = record_rollout(MODEL, SimpleNamespace(name="d"), self.step(records))
        (past,) = past_retrainings(SimpleNamespace(audit=self.audit), "m")
        why = next(e["detail"]["why"] for e in self.audit.entries(subject="model/m") if e["action"] == "retraining_outcome")
        return past.outcome, cool_down_ends([past], spec=MODEL.retraining) - ASKED_AT, why, made


def test_a_live_release_that_is_better_on_the_newest_labels_helped(tmp_path):
    outcome, waits, why, made = World(tmp_path, right="new").record()
    assert (outcome, waits) == ("helped", timedelta(days=10))
    assert why.startswith("It took over; on the 600 newest labelled rows it helped: auroc 0.")
    assert made.metadata["gain"] > 0.1
    assert made.metadata["retraining"] == "helped"


def test_a_live_release_that_is_worse_did_not_help_and_the_next_ask_waits_twice_as_long(tmp_path):
    outcome, waits, why, made = World(tmp_path, right="old").record()
    assert (outcome, waits) == ("did_not_help", timedelta(days=20))
    assert "it did not help: auroc 0." in why
    assert made.metadata["gain"] < 0


def test_going_live_alone_is_no_help_and_what_noise_hides_is_undecided(tmp_path):
    outcome, waits, why, _ = World(tmp_path, right="new", rows=120, noise=0.5).record()
    assert (outcome, waits) == ("undecided", timedelta(days=10))
    assert "it is undecided whether it helped" in why


def test_labels_that_production_learnt_since_are_the_newest_rows(tmp_path):
    world = World(tmp_path, right="old")
    world.log(bookings(3000, seed=8), right="new")
    outcome, _, why, _ = world.record()
    assert outcome == "helped"
    assert "on the 3600 newest labelled rows" in why


def test_rows_of_a_window_at_fault_are_no_newest_labels(tmp_path):
    world = World(tmp_path, right="old")
    world.log(bookings(3000, seed=8), right="new")
    world.fault(f"b{at}" for at in range(2000))
    assert "on the 1600 newest labelled rows" in world.record()[2]


def test_a_release_that_was_rolled_back_did_not_help_and_is_measured_all_the_same(tmp_path):
    outcome, waits, why, made = World(tmp_path, right="new").record(outcome="rolled_back")
    assert (outcome, waits) == ("did_not_help", timedelta(days=20))
    assert "it helped: auroc" in why
    assert made.metadata["retraining"] == "did_not_help"


def test_an_inconclusive_rollout_is_judged_by_what_was_measured(tmp_path):
    assert World(tmp_path, right="new").record(outcome="inconclusive")[0] == "helped"


@pytest.mark.parametrize("before", [None, "new"])
def test_what_cannot_be_compared_is_undecided_although_it_went_live(tmp_path, before):
    outcome, waits, why, made = World(tmp_path, right="new").record(before=before)
    assert (outcome, waits) == ("undecided", timedelta(days=10))
    assert why == "It took over; it could not be measured against another release"
    assert "gain" not in made.metadata


def test_the_record_proves_by_hash_and_shows_every_look(tmp_path):
    world = World(tmp_path, right="new")
    made = world.record(outcome="rolled_back")[3]
    (check,) = made.checks
    assert check.passed
    assert [check.metadata[name].value for name in ("live_before", "live_after", "live_now")] == [world.digests["old"]] * 3
    assert "| shadow | errors | 0 of 20 | 1.00% | -0.50 | 0.10 |" in made.metadata["looks"].value
    assert "data:image/png" in made.metadata["looks_picture"].value
    assert world.audit.entries(subject="model/m")[-1]["detail"]["before"] == world.digests["old"]


def test_during_a_rollout_new_labels_are_counted_once_they_stand_in_the_log(tmp_path):
    world = World(tmp_path, right="new")
    world.live = world.digests["old"]
    seconds = iter([0.0, 1.0, 10.0, 20.0, 30.0])
    count = watch_new_labels(MODEL, world.step({}), release=world.release, monotonic=lambda: next(seconds, 99.0))
    assert count() == Tally()
    world.log(bookings(400, seed=8), right="old", label_share=0.5)
    found = count()
    while found == Tally():
        found = count()
    assert 40 < found.trials < 200  # half of the rows have a label, and on about half of those the two differ
    assert found.share > 0.8
    assert newest_labels.MOST_ROWS >= 400
