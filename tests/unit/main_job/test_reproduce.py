"""What `falaj reproduce` does where a pinned table version is not there any more."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest

from platform_assets import cli
from platform_assets.errors import ReleaseError, ReproductionError, TrainingError
from platform_assets.main_job import reproduce as verb
from platform_assets.main_job.reproduce import _find_base, _is_there, _read_recorded, _train
from platform_assets.manifests import ReleaseFiles
from resources.artifacts import FolderArtifactStore
from resources.delta_tables import DeltaTableStore
from resources.settings import Home, Settings


@pytest.fixture
def tables(tmp_path):
    return DeltaTableStore(tmp_path / "tables")


def test_a_version_is_gone_when_the_log_or_its_files_no_longer_have_it(tables, tmp_path):
    first = tables.replace("things", pa.table({"key": ["a"], "value": [1.0]}))
    old_files = set((tmp_path / "tables" / "things").glob("*.parquet"))
    second = tables.replace("things", pa.table({"key": ["a"], "value": [2.0]}))
    parts = SimpleNamespace(tables=tables)
    assert _is_there(parts, first, column="key")
    assert not _is_there(parts, replace(second, version=7), column="key")
    assert not _is_there(parts, replace(first, table="never"), column="key")
    for file in old_files:  # what a vacuum does
        file.unlink()
    assert not _is_there(parts, first, column="key")
    assert _is_there(parts, second, column="key")


def test_a_training_that_began_with_weights_that_are_not_kept_is_refused_by_name(tmp_path):
    parts = SimpleNamespace(artefacts=FolderArtifactStore(tmp_path))
    recorded = SimpleNamespace(training="a" * 64, warm_start="b" * 64)
    with pytest.raises(ReleaseError, match="training aaaaaaaaaaaa began with the weights of training bbbbbbbbbbbb, which are not kept"):
        _find_base(parts, recorded)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "checkpoint.pt").write_bytes(b"w")
    kept = parts.artefacts.put(tmp_path / "weights")
    assert (_find_base(parts, SimpleNamespace(training="a" * 64, warm_start=kept)) / "checkpoint.pt").read_bytes() == b"w"
    assert _find_base(parts, SimpleNamespace(training="a" * 64, warm_start=None)) is None


def test_a_private_training_is_not_spent_once_more():
    lineage = b'{"warm_start": null, "privacy": {"epsilon": 2.97}}'
    with pytest.raises(ReleaseError, match=r"it would draw other noise and spend epsilon 2\.97 on the same rows once more"):
        _read_recorded(ReleaseFiles("0" * 64, {}, {"lineage.json": lineage, "declaration.json": b"{}"}))


def test_a_trainer_that_fails_ends_in_its_own_last_words(tmp_path):
    (tmp_path / "plan.json").write_text('{"architecture": "tabular_mlp", "kind": "binary", "threads": 1, "no_such_field": 1}')
    settings = Settings(home=Home(tmp_path / "home"), environment="laptop", defs_root=tmp_path, webhook_url=None, serve_port=0, web_port=0)
    with pytest.raises(TrainingError, match=r"made again ended with status 1: .*is no training plan: .*no_such_field"):
        _train(settings, tmp_path / "data", tmp_path, tmp_path / "out", noted=[], base=None)


def test_a_difference_is_written_printed_and_ends_in_an_error(tmp_path, monkeypatch, capsys):
    found = {
        "model": "m", "version": "0123", "outcome": "different", "sentence": "3 of 9 weights differ",
        "training_set": {"digest": "a" * 64, "found": "b" * 64, "gone": []},
    }  # fmt: skip
    monkeypatch.setattr(verb, "reproduce", lambda *_, console: found)
    with pytest.raises(ReproductionError, match="m@0123 was not reproduced: 3 of 9 weights differ"):
        cli.reproduce("m@0123", json_file=tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == found
    printed = capsys.readouterr().out
    assert "a" * 12 in printed
    assert "b" * 12 in printed
    assert "m@0123: different: 3 of 9 weights differ." in printed
