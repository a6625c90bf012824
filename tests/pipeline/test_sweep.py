"""`falaj sweep` on the finished tiny home: trials are runs like any other, the best network goes through the gates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline.tiny import MODEL, Finished

from platform_assets import keys
from platform_assets.components.step import key_of, latest_record
from platform_assets.specs.records import Training
from platform_assets.specs.sweep import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_trials_are_runs_and_the_best_network_is_a_candidate_like_any_other(finished: Finished, tmp_path: Path) -> None:
    answer = finished.tiny.falaj("sweep", MODEL, "--trials", "2", "--json", str(tmp_path / "found.json"))
    assert answer.returncode == 0, answer.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    with finished.tiny.instance() as instance:
        record = latest_record(instance, keys.model_key(MODEL, keys.SWEEP), Sweep)
        events = instance.fetch_materializations(key_of(keys.model_key(MODEL, keys.SWEEP)), limit=5).records
        trained = latest_record(instance, keys.model_key(MODEL, "trained"), Training)
    assert record is not None
    assert trained is not None
    assert found["trials"] == record.counts == {"complete": 2}
    assert len({event.run_id for event in events}) == 2
    values = [event.asset_materialization.metadata["calibration_auroc"].value for event in events]
    assert record.value == found["best"]["value"] == max(values)
    assert record.first == {"width": 16, "epochs": 2}
    parts = finished.tiny.parts
    entries = [entry for entry in parts.ledger.entries(_this_month()) if entry.stage == f"model/{keys.SWEEP}"]
    assert {entry.run_id for entry in entries} == {event.run_id for event in events}
    if record.beats_declared:
        plan = json.loads((parts.artefacts.path(trained.digest) / "plan.json").read_text())
        assert {name: plan[name] for name in record.changes} == record.changes
        assert trained.calibration["auroc"] == pytest.approx(record.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["nobody"], "no model of this name; declared: tiny_cancellations"), ([MODEL, "--trials", "0"], "greater than or equal to 1")],
)
def test_what_cannot_be_searched_is_said_in_a_sentence(finished: Finished, arguments: list[str], sentence: str) -> None:
    answer = finished.tiny.falaj("sweep", *arguments)
    assert answer.returncode != 0
    assert sentence in answer.stdout + (answer.stderr or "")


def _this_month():
    import time

    from platform_assets.specs.spending import Month

    return Month.of(time.time())
