"""What a retraining could begin with: the live release's training, or the reason why nothing can."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from platform_assets.components.retraining_evidence import find_base
from platform_assets.errors import ServingError
from platform_assets.manifests import ReleaseFiles
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.stages.retraining.start import Base
from resources.artifacts import FolderArtifactStore
from resources.settings import CHECKOUT

LIVE = "5" * 64


@pytest.fixture(scope="module")
def model():
    return load_catalogue(CHECKOUT / "platform_assets" / "defs").models["digits"]


@pytest.fixture
def parts(tmp_path, model):
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "checkpoint.pt").write_bytes(b"weights")
    artefacts = FolderArtifactStore(tmp_path / "artefacts")
    files = {
        "lineage.json": json.dumps({"training": artefacts.put(tmp_path / "trained")}).encode(),
        "declaration.json": json.dumps({"model": model.model_dump(mode="json", by_alias=True)}).encode(),
    }
    return SimpleNamespace(
        artefacts=artefacts,
        releases=SimpleNamespace(open=lambda _: ReleaseFiles(LIVE, {}, files)),
        serving=SimpleNamespace(status=lambda _: {"live": LIVE}),
        files=files,
    )


def test_the_live_release_is_what_one_begins_with(model, parts):
    assert find_base(model, parts) == Base(json.loads(parts.files["lineage.json"])["training"], refused="")


def test_what_hinders_it_is_said(model, parts):
    def away(_):
        raise ServingError("away")

    def refused(changed, **training):
        other = changed.model_copy(update={"training": changed.training.model_copy(update=training)})
        return find_base(other, parts).refused

    assert refused(model, width=64) == f"the champion {LIVE[:12]} was declared otherwise (training)"
    assert refused(model, attempts=9) == ""  # how it runs does not decide what it learns
    split = model.split.model_copy(update={"holdout": 0.3})
    assert find_base(model.model_copy(update={"split": split}), parts).refused.endswith("(split)")
    parts.files["lineage.json"] = json.dumps({"training": "e" * 64}).encode()
    assert find_base(model, parts).refused == "the champion's training eeeeeeeeeeee is not kept any more"
    parts.serving.status = lambda _: {"live": None}
    assert find_base(model, parts).refused == "there is no champion"
    parts.serving.status = away
    assert find_base(model, parts).refused == "no server says which release is live"
    assert "begins from nothing" in refused(model, privacy=object())
