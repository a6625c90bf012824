"""The convolutional network: any side, no neighbour in the batch has a say, channels can be cut, other inputs are refused."""

from __future__ import annotations

import pytest
import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.architectures import build_network
from platform_assets.networks.preprocessing import NumberColumn, Preprocessing
from platform_assets.stages.compression.methods.prune import cut_channels
from tests.unit.networks.tiny import plan


def make(side, *, numbers=()):
    torch.manual_seed(0)
    preprocessing = Preprocessing(numbers, (), side * side, 16.0)
    return build_network(plan("convolutional", kind="multiclass"), preprocessing=preprocessing, classes=3).eval()


def ask(network, images):
    return network(torch.empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.int64), images)


@pytest.mark.parametrize("side", [1, 3, 5, 8, 28])
def test_an_image_of_any_side_alone_is_answered_as_in_a_batch(side):
    images = torch.rand(6, side * side) * 16
    network = make(side)
    together = ask(network, images)
    assert together.shape == (6, 3)
    torch.testing.assert_close(torch.cat([ask(network, image[None]) for image in images]), together, atol=1e-5, rtol=1e-5)


def test_half_of_the_inner_channels_can_be_cut():
    network = make(8)
    images = torch.rand(4, 64)
    before = sum(weight.numel() for weight in network.parameters())
    assert cut_channels(network, inputs=(torch.empty(4, 0), torch.empty(4, 0, dtype=torch.int64), images), share=0.5) == 2 * 16
    assert sum(weight.numel() for weight in network.parameters()) < 0.6 * before
    assert ask(network, images).shape == (4, 3)


def test_what_is_no_square_image_alone_is_refused():
    with pytest.raises(TrainingError, match="one square image and nothing else"):
        make(8, numbers=(NumberColumn("n", False, 0.0, 0.0, 1.0, (0.0, 1.0)),))
