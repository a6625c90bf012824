"""Files that torch wrote, and files that say so: nothing in them is called, nothing grows beyond its file."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from platform_assets.errors import TrainingError
from platform_assets.networks.checkpoint import CHECKPOINT
from platform_assets.networks.comparison import compare_weights
from platform_assets.networks.states import States
from platform_assets.networks.unpacking import load_module, load_tensors
from platform_assets.stages.compression.students.forest import Forest, _Tree
from platform_assets.stages.compression.students.tables import TableCode


class Evil:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, place: Path, call=os.mkdir) -> None:
        self.place, self.call = place, call

    def __reduce__(self):
        return (self.call, (str(self.place),))


class Foreign(nn.Module):
    """A layer of somebody else's."""


def spoil(file: Path, value: object) -> None:
    """Put another pickle into a file of torch's."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    with zipfile.ZipFile(file, "w") as new:
        for member, content in {**members, name: pickle.dumps(value, protocol=2)}.items():
            new.writestr(member, content)


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "training" / CHECKPOINT
    file.parent.mkdir()
    torch.save({"a": torch.arange(4.0)}, file)
    return file


def test_weights_and_networks_are_what_was_written(weights, tmp_path):
    assert torch.equal(load_tensors(weights)["a"], torch.arange(4.0))
    made = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    torch.save(made, tmp_path / "m.pt")
    assert torch.equal(load_module(tmp_path / "m.pt")(torch.ones(1, 3)), made(torch.ones(1, 3)))
    flags = np.ones(1, bool)
    tree = _Tree(
        np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64), flags, np.ones(1, np.float32)
    )
    torch.save(Forest(TableCode(*[None] * len(TableCode.__dataclass_fields__)), (tree,), 0.5), tmp_path / "f.pt")
    assert load_module(tmp_path / "f.pt").trees[0].answers.tolist() == [1.0]


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, Path])
def test_nothing_that_a_file_names_is_called(weights, tmp_path, call):
    for read in (load_tensors, load_module):
        spoil(weights, Evil(tmp_path / "owned", call))
        with pytest.raises(TrainingError, match="was not read"):
            read(weights)
    with pytest.raises(TrainingError, match="was not read"):
        compare_weights(weights.parent, weights.parent)
    assert not (tmp_path / "owned").exists()


def test_a_class_is_built_only_where_it_is_a_layer_or_known(tmp_path):
    torch.save(Foreign(), tmp_path / "f.pt")
    with pytest.raises(TrainingError, match=r"it names .*Foreign, which is no layer or student"):
        load_module(tmp_path / "f.pt")
    assert isinstance(load_module(tmp_path / "f.pt", known=[Foreign]), Foreign)
    for name in ("torch.nn.modules.module.warnings.warn", "platform_assets.networks.checkpoint.write_text"):
        module, _, label = name.rpartition(".")
        spoil(tmp_path / "f.pt", None)
        code = b"\x80\x02c" + f"{module}\n{label}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
        with zipfile.ZipFile(tmp_path / "f.pt") as old:
            members = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(tmp_path / "f.pt", "w") as new:
            for member, content in members.items():
                new.writestr(member, code if member.endswith("data.pkl") else content)
        with pytest.raises(TrainingError, match="was not read"):
            load_module(tmp_path / "f.pt")


def test_a_file_that_would_unpack_to_more_than_it_has_is_refused_unread(weights):
    grown = io.BytesIO()
    with zipfile.ZipFile(grown, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as member:
        for _ in range(64):
            member.write(bytes(1 << 20))
    weights.write_bytes(grown.getvalue())
    for read in (load_tensors, load_module):
        with pytest.raises(TrainingError, match=r"bytes and would unpack to 67,108,864"):
            read(weights)


def test_a_torn_file_is_one_sentence(weights):
    whole = weights.read_bytes()
    for content in (b"", whole[:200], whole[:-40], whole.replace(b"data.pkl", b"date.pkl"), b"\x80\x04\x95" + bytes(50)):
        weights.write_bytes(content)
        for read in (load_tensors, load_module):
            with pytest.raises(TrainingError, match="was not read"):
                read(weights)


def test_a_spoilt_checkpoint_with_a_fitting_hash_is_passed_over(tmp_path):
    import hashlib
    import json

    states = States(tmp_path / "state", keep=2)
    states.write(1, {"a": torch.ones(2)})
    states.wait()
    states.write(2, {"a": torch.ones(2)})
    states.wait()
    data = tmp_path / "state" / "step-000000002.pt"
    spoil(data, Evil(tmp_path / "owned"))
    header = json.loads(data.with_suffix(".json").read_text())
    data.with_suffix(".json").write_text(json.dumps({**header, "sha256": hashlib.sha256(data.read_bytes()).hexdigest()}))
    told = []
    assert states.load(on_damage=told.append)[0] == 1
    assert "step 2 is damaged" in told[0]
    assert not (tmp_path / "owned").exists()
