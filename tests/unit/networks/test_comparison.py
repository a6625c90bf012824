"""Weights are compared bit by bit: nothing that differs is overlooked, whatever its type."""

from __future__ import annotations

import pytest
import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.comparison import compare_weights

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(5), "mask": torch.tensor([True, False])}


def saved(folder, **changed):
    folder.mkdir()
    torch.save({**STATE, **changed}, folder / "checkpoint.pt")
    return folder


def test_equal_weights_have_no_difference(tmp_path):
    found = compare_weights(saved(tmp_path / "one"), saved(tmp_path / "other"))
    assert (found.numbers, found.different, found.largest, found.tensors) == (9, 0, 0.0, ())


@pytest.mark.parametrize(
    ("changed", "different"),
    [
        ({"weight": STATE["weight"] + torch.tensor([[0, 1e-6, 0], [0, 0, 0]])}, 1),
        ({"weight": -STATE["weight"]}, 6),  # the sign of zero is a bit too
        ({"steps": torch.tensor(6)}, 1),
        ({"mask": torch.tensor([True, True])}, 1),
        ({"weight": STATE["weight"].double()}, 6),
        ({"weight": STATE["weight"].T}, 6),
        ({"more": torch.zeros(4)}, 4),
    ],
)
def test_each_number_that_differs_in_any_bit_is_counted(tmp_path, changed, different):
    found = compare_weights(saved(tmp_path / "one"), saved(tmp_path / "other", **changed))
    assert found.different == different
    assert found.tensors == tuple(changed)


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"empty holds no checkpoint\.pt"):
        compare_weights(saved(tmp_path / "one"), tmp_path / "empty")
