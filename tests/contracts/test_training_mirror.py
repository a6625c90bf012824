"""What every mirror of trainings under way promises: the folder alone, as on a laptop, and an S3-compatible store beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from s3_process import own_prefix

from platform_assets.networks.states import States
from resources.training_mirror import NoMirror, S3TrainingMirror
from resources.trainings import TrainingFolder

KEY, LONG_AGO = "m-0123456789abcdef", 30 * 86400.0
Mirror = NoMirror | S3TrainingMirror


@pytest.fixture(params=["folder", "s3"])
def mirror(request: pytest.FixtureRequest) -> Mirror:
    return S3TrainingMirror(own_prefix(request.getfixturevalue("s3_server"))) if request.param == "s3" else NoMirror()


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training that was begun once, has said something and has two whole checkpoints."""
    root = tmp_path / "here" / KEY
    attempt = TrainingFolder(root).new_attempt({"run_id": "r"})
    (attempt.folder / "messages.jsonl").write_bytes(b'{"method": "log"}\n')
    states = States(root / "out" / "state", keep=2)
    for step in (1, 2):
        states.write(step, {"step": step, "weights": torch.full((10,), float(step))})
        states.wait()
    return root


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def elsewhere(tmp_path: Path, machine: str = "there") -> Path:
    (tmp_path / machine).mkdir(exist_ok=True)
    return tmp_path / machine / KEY


def test_what_another_machine_is_brought_is_nothing_or_the_whole_training(mirror: Mirror, training: Path, tmp_path: Path) -> None:
    mirror.keep(training)
    theirs = elsewhere(tmp_path)
    assert mirror.bring(theirs) is theirs.exists()
    assert theirs.exists() is isinstance(mirror, S3TrainingMirror), "without a store the folder is all there is"
    if theirs.exists():
        brought, ours = content(theirs), content(training)
        assert {name for name in ours if "state/" in name or name.endswith(("attempt.json", "messages.jsonl"))} <= set(brought)
        assert all(ours[name] == held for name, held in brought.items())
    assert [path.name for path in theirs.parent.iterdir()] == ([KEY] if theirs.exists() else []), "nothing half brought lies about"


def test_keeping_leaves_the_folder_as_it_is_and_may_be_repeated(mirror: Mirror, training: Path) -> None:
    before = content(training)
    mirror.keep(training)
    mirror.keep(training)
    assert content(training) == before


def test_a_folder_that_is_here_is_what_counts(mirror: Mirror, training: Path) -> None:
    mirror.keep(training)
    (training / "out" / "mine").write_text("newer than what is kept")
    before = content(training)
    assert mirror.bring(training) is False
    assert content(training) == before


def test_a_training_that_nobody_keeps_is_not_brought(mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.bring(elsewhere(tmp_path)) is False
    assert not elsewhere(tmp_path).exists()


def test_a_training_that_has_written_nothing_yet_is_kept_without_a_word(mirror: Mirror, tmp_path: Path) -> None:
    mirror.keep(tmp_path / KEY)
    (tmp_path / KEY).mkdir()
    mirror.keep(tmp_path / KEY)
    assert mirror.bring(elsewhere(tmp_path)) is False


def test_what_is_dropped_is_brought_to_nobody_and_dropping_it_again_is_nothing(mirror: Mirror, training: Path, tmp_path: Path) -> None:
    before = content(training)
    mirror.keep(training)
    mirror.drop(KEY)
    mirror.drop(KEY)
    mirror.drop("m-that-never-was")
    assert mirror.bring(elsewhere(tmp_path)) is False
    assert content(training) == before, "what is here is not the mirror's to remove"


def test_after_a_drop_a_training_may_be_kept_again(mirror: Mirror, training: Path, tmp_path: Path) -> None:
    mirror.keep(training)
    first = mirror.bring(elsewhere(tmp_path, "first"))
    mirror.drop(KEY)
    mirror.keep(training)
    assert mirror.bring(elsewhere(tmp_path, "second")) is first
    if first:
        assert content(elsewhere(tmp_path, "second")) == content(elsewhere(tmp_path, "first"))


def test_sweeping_takes_what_is_old_tells_its_name_once_and_leaves_folders_alone(mirror: Mirror, training: Path, tmp_path: Path) -> None:
    mirror.keep(training)
    before = content(training)
    assert mirror.sweep(older_than_seconds=LONG_AGO) == []
    swept = mirror.sweep(older_than_seconds=-60.0)
    assert swept == ([KEY] if isinstance(mirror, S3TrainingMirror) else [])
    assert mirror.sweep(older_than_seconds=-60.0) == []
    assert mirror.bring(elsewhere(tmp_path)) is False
    assert content(training) == before
