"""Checkpoints: whole or not there, the last few kept, damage passed over."""

from __future__ import annotations

import os

import pytest
import torch

from platform_assets.networks.states import States

STATE = {"weights": {"a": torch.arange(1000.0)}, "step": 3, "curve": [{"loss": 0.5}], "chance": ("x", 1, None)}


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "state", keep=2)


def write(states, *steps):
    for step in steps:
        states.write(step, STATE)
    states.wait()


def test_what_was_written_is_read_back(states):
    write(states, 7)
    step, found = states.load(on_damage=pytest.fail)
    assert step == 7
    assert torch.equal(found["weights"]["a"], STATE["weights"]["a"])
    assert (found["step"], found["curve"], found["chance"]) == (3, [{"loss": 0.5}], ("x", 1, None))


def test_the_last_ones_are_kept(states):
    write(states, 1, 2, 3, 10)
    assert states.steps() == [10, 3]
    assert {path.suffix for path in states.folder.iterdir()} == {".pt", ".json"}
    assert len(list(states.folder.iterdir())) == 4


@pytest.mark.parametrize("damage", ["a byte", "cut short", "gone", "no header", "half a header"])
def test_a_damaged_one_is_passed_over_for_the_one_before(states, damage):
    write(states, 1, 2)
    data, header = states.folder / "step-000000002.pt", states.folder / "step-000000002.json"
    whole = data.read_bytes()
    if damage == "a byte":
        data.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    elif damage == "cut short":
        data.write_bytes(whole[: len(whole) // 2])
    elif damage == "gone":
        data.unlink()
    elif damage == "no header":
        header.unlink()
    else:
        header.write_text(header.read_text()[:20])
    said: list[str] = []
    step, _ = states.load(on_damage=said.append)
    assert step == 1
    assert len(said) == (damage != "no header")


def test_nothing_whole_is_nothing(states):
    assert states.load(on_damage=pytest.fail) is None
    write(states, 1)
    (states.folder / "step-000000001.pt").write_bytes(b"")
    assert states.load(on_damage=lambda _: None) is None


def test_what_a_kill_left_half_written_is_swept_up(states):
    write(states, 1)
    (states.folder / ".step-000000002.pt.part").write_bytes(b"half")
    (states.folder / "step-000000003.pt").write_bytes(b"no header yet")
    states.tidy()
    assert sorted(path.name for path in states.folder.iterdir()) == ["step-000000001.json", "step-000000001.pt"]


def test_the_next_one_is_due_early_by_what_the_last_one_took(states, monkeypatch):
    assert not states.due(9.9, every_seconds=10)
    assert states.due(10, every_seconds=10)
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (__import__("time").sleep(0.1), really(handle)))
    write(states, 1)
    assert states.due(9.8, every_seconds=10)
    assert not states.due(0.1, every_seconds=0.3), "never before half of the interval"
