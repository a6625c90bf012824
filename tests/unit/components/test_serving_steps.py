"""What a rollout's record says of the retraining behind it, and how long the next one then has to wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from platform_assets import keys
from platform_assets.components.monitoring_steps import ASKED, past_retrainings
from platform_assets.components.serving_steps import record_rollout
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import Release, RolloutVerdict
from platform_assets.stages.release import scoring
from platform_assets.stages.retraining.policy import cool_down_ends
from resources.testing.artifacts import MemoryArtifactStore
from resources.testing.registry import MemoryRegistry
from resources.testing.state import MemoryAuditLog, MemoryClock

ASKED_AT = datetime(2026, 3, 1)
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict y for the tests", "dataset": "d", "features": {"views": ["v"]},
    "target": {"column": "y", "kind": "binary"}, "training": {"architecture": "tabular_mlp"}, "gates": {"auroc": ">= 0.5"},
    "retraining": {"cool_down": "10d"},
})  # fmt: skip


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Record a rollout of a retrained release over an older one, whose scores on the new holdout are given."""
    artefacts, audit, clock = MemoryArtifactStore(tmp_path / "scratch"), MemoryAuditLog(), MemoryClock()
    digests = {}
    for name in ("old", "new", "training_set"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
        digests[name] = artefacts.put(tmp_path / name)
    for name in ("old", "new"):
        audit.append("release", subject="model/m", actor="run/1", detail={"digest": digests[name]})
    asked = {"verdict_id": "v1", "trigger": "drift", "at": ASKED_AT.isoformat(), "why": "drifted"}
    audit.append(ASKED, subject="model/m", actor="policy", detail=asked)
    clock.advance("d", ASKED_AT + timedelta(days=1))

    def run(scores, *, outcome="live", previous="old"):
        def score(bundle, data_dir, *, kind):
            assert ((data_dir / "name").read_text(), kind) == ("training_set", "binary")
            found = scores[(bundle / "name").read_text()]
            return None if found is None else {"auroc": found}

        monkeypatch.setattr(scoring, "score_bundle", score)
        live = digests["new" if outcome == "live" else "old"]
        verdict = RolloutVerdict(
            outcome, digests["new"][:12], digests[previous][:12] if previous else None, live, (), None, None, 0.0, 0, "It took over."
        )
        release = Release("m", digests["new"][:12], digests["new"], "teacher", "2", {}, digests["training_set"])
        records = {tuple(keys.model_key("m", "release")): release, tuple(keys.model_key("m", "deployed")): verdict}
        serving = SimpleNamespace(status=lambda _: {"live": live})
        parts = SimpleNamespace(artefacts=artefacts, audit=audit, clock=clock, registry=MemoryRegistry(), serving=serving)
        parts.registry.set_alias = lambda *_: None
        context = SimpleNamespace(run=SimpleNamespace(run_id="1"))
        made = record_rollout(
            MODEL, SimpleNamespace(name="d"), SimpleNamespace(parts=parts, context=context, read=lambda key, _: records[tuple(key)])
        )
        (past,) = past_retrainings(parts, "m")
        why = audit.entries(subject="model/m")[-2]["detail"]["why"]
        waits = cool_down_ends([past], spec=MODEL.retraining) - ASKED_AT
        return past.outcome, waits, why, made.metadata

    return run


def test_a_live_release_that_is_better_on_the_newest_labels_helped(record):
    outcome, waits, why, metadata = record({"old": 0.70, "new": 0.75})
    assert (outcome, waits) == ("helped", timedelta(days=10))
    assert why == "It took over; on the newest labelled rows it helped: auroc 0.7000 before, 0.7500 after"
    assert metadata["gain"] == pytest.approx(0.05)


@pytest.mark.parametrize("after", [0.70, 0.65])
def test_a_live_release_that_is_no_better_did_not_help_and_the_next_ask_waits_twice_as_long(record, after):
    outcome, waits, why, _ = record({"old": 0.70, "new": after})
    assert (outcome, waits) == ("did_not_help", timedelta(days=20))
    assert "it did not help" in why


def test_a_release_that_was_rolled_back_did_not_help_and_is_not_measured(record):
    assert record({}, outcome="rolled_back")[:2] == ("did_not_help", timedelta(days=20))


@pytest.mark.parametrize(("scores", "previous"), [({"old": None, "new": 0.9}, "old"), ({}, None), ({}, "new")])
def test_what_cannot_be_compared_counts_as_help_because_it_went_live(record, scores, previous):
    outcome, waits, why, metadata = record(scores, previous=previous)
    assert (outcome, waits, why) == ("helped", timedelta(days=10), "It took over.")
    assert "gain" not in metadata
