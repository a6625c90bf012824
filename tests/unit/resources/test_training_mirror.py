"""Trainings under way in a store: what another machine goes on with, also after a kill in the middle of an upload or an outage."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from s3_process import killed_before_request, own_prefix
from supervised import KEY, World

from platform_assets.errors import TrainingError
from platform_assets.networks.private.journal import Journal
from platform_assets.networks.states import States
from resources.s3 import S3
from resources.training_mirror import NoMirror, S3TrainingMirror
from resources.trainings import TrainingFolder


@pytest.fixture
def place(s3_server) -> S3:
    return own_prefix(s3_server)


def written(root: Path, *steps: int, keep: int = 2) -> States:
    """A folder in which a trainer has written these checkpoints."""
    states = States(root / "out" / "state", keep=keep)
    for step in steps:
        states.write(step, {"step": step, "weights": torch.full((100,), float(step))})
        states.wait()
    assert all(one.why is None for one in states.take_told())
    return states


def newest(root: Path) -> int | None:
    """The step that a trainer would go on from; a damaged checkpoint is a failure."""

    def damaged(why: str) -> None:
        raise AssertionError(why)

    found = States(root / "out" / "state", keep=2).load(on_damage=damaged)
    return None if found is None else found[0]


def test_another_machine_goes_on_from_the_newest_checkpoint_and_only_those_kept_here_are_kept_there(place, tmp_path):
    ours, mirror = tmp_path / "ours" / KEY, S3TrainingMirror(place)
    for step in (1, 2, 3):
        written(ours, step)
        mirror.keep(ours)
    assert set(place.sizes(f"trainings/{KEY}/out/state")) == {path.name for path in (ours / "out" / "state").iterdir()}
    theirs = tmp_path / "theirs" / KEY
    theirs.parent.mkdir()
    assert S3TrainingMirror(place).bring(theirs)
    assert newest(theirs) == 3
    assert not S3TrainingMirror(place).bring(theirs), "a folder that is here is what counts"
    written(theirs, 4)
    S3TrainingMirror(place).keep(theirs)  # a process of its own, which knows of nothing
    assert set(place.sizes(f"trainings/{KEY}/out/state")) == {path.name for path in (theirs / "out" / "state").iterdir()}
    mirror.drop(KEY)
    assert place.sizes("trainings") == {}
    assert not mirror.bring(tmp_path / "third" / KEY)


def test_a_private_trainings_checkpoints_stay_where_their_steps_are_counted(place, tmp_path):
    root = tmp_path / "one" / "m-1"
    written(root, 10, 20)
    Journal(root / "out" / "state", block=4).begin(most=9)
    S3TrainingMirror(place).keep(root)
    (tmp_path / "two").mkdir()
    S3TrainingMirror(place).bring(tmp_path / "two" / "m-1")
    assert newest(root) == 20
    assert newest(tmp_path / "two" / "m-1") is None


def test_a_checkpoint_written_again_under_its_step_is_kept_again(place, tmp_path):
    ours, mirror = tmp_path / "ours" / KEY, S3TrainingMirror(place)
    written(ours, 7)
    mirror.keep(ours)
    again = States(ours / "out" / "state", keep=2)
    again.write(7, {"step": 7, "weights": torch.zeros(3)})
    again.wait()
    mirror.keep(ours)
    theirs = tmp_path / KEY
    assert mirror.bring(theirs)
    assert States(theirs / "out" / "state", keep=2).load(on_damage=pytest.fail)[1]["weights"].shape == (3,)


def test_a_kill_at_any_request_leaves_no_checkpoint_that_is_not_whole(place, tmp_path):
    ours = tmp_path / "ours" / KEY
    written(ours, 1, 2)
    S3TrainingMirror(place).keep(ours)
    written(ours, 3, 4)
    attempt = TrainingFolder(ours).new_attempt({"run_id": "r"})
    (attempt.folder / "messages.jsonl").write_bytes(b'{"method": "log"}\n')
    moment, found = 1, set()
    while killed_before_request(moment, lambda: S3TrainingMirror(place).keep(ours)):
        theirs = tmp_path / f"theirs-{moment}" / KEY
        theirs.parent.mkdir()
        assert S3TrainingMirror(place).bring(theirs)
        found.add(newest(theirs))
        moment += 1
    assert moment > 8
    assert found <= {2, 4}
    theirs = tmp_path / KEY
    assert S3TrainingMirror(place).bring(theirs)
    assert newest(theirs) == 4


def test_messages_are_kept_in_pieces_whole_lines_each_and_come_back_as_one_file(place, tmp_path):
    ours = tmp_path / "ours" / KEY
    messages = TrainingFolder(ours).new_attempt({"run_id": "r"}).folder / "messages.jsonl"
    for text in (b"one\ntw", b"one\ntwo\nthree\n", b"one\ntwo\nthree\nfour\ntorn"):
        messages.write_bytes(text)
        S3TrainingMirror(place).keep(ours)  # each time one that has to find out what is kept
    assert S3TrainingMirror(place).bring(tmp_path / KEY)
    assert (tmp_path / KEY / "attempts" / "0001" / "messages.jsonl").read_bytes() == b"one\ntwo\nthree\nfour\n"
    place.remove(f"trainings/{KEY}/attempts/0001/messages/{len(b'one' + b'.'):012d}")
    shutil.rmtree(tmp_path / KEY)
    assert S3TrainingMirror(place).bring(tmp_path / KEY)
    assert (tmp_path / KEY / "attempts" / "0001" / "messages.jsonl").read_bytes() == b"one\n", "what follows a gap is left out"


def test_an_outage_stops_nothing_and_is_told_once(s3_server, tmp_path, caplog):
    ours = tmp_path / "ours" / KEY
    written(ours, 1)
    away = S3(s3_server.model_copy(update={"endpoint": "http://127.0.0.1:1"}), tries=1)
    mirror = S3TrainingMirror(away)
    with caplog.at_level(logging.WARNING):
        mirror.keep(ours)
        mirror.keep(ours)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Checkpoints and messages of {KEY} are kept on this machine alone for now: the store s3://")


def test_a_training_that_came_to_nothing_goes_after_its_time(place, tmp_path):
    written(tmp_path / KEY, 1)
    mirror = S3TrainingMirror(place)
    mirror.keep(tmp_path / KEY)
    assert mirror.sweep(older_than_seconds=3600) == []
    assert mirror.sweep(older_than_seconds=-60) == [KEY]
    assert place.sizes("trainings") == {}


class Machine(World):
    """A machine of a team with this store."""

    place: S3

    def parts(self):
        made = super().parts()
        made.__dict__["mirror"] = S3TrainingMirror(self.place)
        return made


def test_a_training_whose_machine_is_lost_is_gone_on_with_by_another_and_what_its_trainer_said_is_heard_there(place, tmp_path):
    first, second = Machine(tmp_path / "first", [{"kill_at": 8}]), Machine(tmp_path / "second", [{}])
    first.place = second.place = place
    with pytest.raises(TrainingError):
        first.run(attempts=1)
    written(first.folder.root, 5)
    S3TrainingMirror(place).keep(first.folder.root)
    place.remove(f"trainings/{KEY}/attempts/0001/exit.json")  # the machine went before the end was noted
    said: list[str] = []
    trained = second.run(said=said, attempts=2)
    assert [(attempt["number"], attempt["outcome"]) for attempt in trained.attempts] == [(1, "killed"), (2, "finished")]
    assert f"Brought {KEY} from the store, with its checkpoints: another machine began it." in said
    assert [text for text in said if text.startswith("step ")][:8] == [f"step {step}" for step in range(1, 9)]
    assert newest(second.folder.root) == 5


def test_without_a_store_nothing_is_kept(tmp_path):
    mirror = NoMirror()
    mirror.keep(tmp_path)
    mirror.drop(KEY)
    assert (mirror.bring(tmp_path), mirror.sweep(older_than_seconds=0)) == (False, [])
