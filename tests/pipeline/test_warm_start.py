"""A retraining that was asked for with the champion's weights begins with them, and is made again with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest
from pipeline.tiny import MODEL, Finished, TinyHome

from platform_assets import keys
from platform_assets.components.retraining_history import open_retraining
from platform_assets.components.step import latest_record
from platform_assets.main_job import reproduce as verb
from platform_assets.networks.comparison import compare_weights
from platform_assets.networks.conditions import read_conditions
from platform_assets.specs.records import RetrainingVerdict, Training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_half_the_epochs_from_the_champions_weights_and_the_same_once_more(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.tiny.home.root, tmp_path / "home", ignore=shutil.ignore_patterns("*.socket", "run"))
    tiny = TinyHome(tmp_path / "home")
    parts, trained = tiny.parts, dg.AssetKey(keys.model_key(MODEL, "trained"))
    with tiny.instance() as instance:
        before = latest_record(instance, trained.path, Training)
        asked = RetrainingVerdict(True, "performance", "it dropped", "w1", "2024-08-01T00:00:00", how="warm_start", base=before.digest)
        open_retraining(parts, MODEL, asked, age=1)
        job = tiny.repository().get_job(keys.train_job(MODEL))
        assert job.execute_in_process(instance=instance, asset_selection=[trained]).success
        after = latest_record(instance, trained.path, Training)
        event = instance.get_latest_materialization_event(trained)
    assert (before.warm_start, after.warm_start) == (None, before.digest)
    folder = parts.artefacts.path(after.digest)
    assert [len(json.loads((parts.artefacts.path(one.digest) / "curve.json").read_text())) for one in (before, after)] == [2, 1]
    assert json.loads((folder / "result.json").read_text())["warm_share"] == 1.0
    assert event.asset_materialization.metadata["began_with"].value == f"100% of the weights of training {before.digest[:12]}"

    data, base = parts.artefacts.path(after.training_set), parts.artefacts.path(before.digest)
    for place, weights in {"same": base, "fresh": None}.items():
        (tmp_path / place).mkdir()
        verb._train(tiny.settings, data, folder, tmp_path / place / "out", noted=read_conditions(folder), base=weights)
    assert compare_weights(folder, tmp_path / "same" / "out").different == 0
    assert compare_weights(folder, tmp_path / "fresh" / "out").different > 0
