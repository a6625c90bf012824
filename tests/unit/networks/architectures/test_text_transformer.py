"""The text transformer: padding has no say, pieces keep their rows in a warm start, and large forms can be expressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from platform_assets.errors import TrainingError
from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import Trained, save_trained, warm_start
from platform_assets.networks.preprocessing import Preprocessing
from platform_assets.networks.tokens import FIRST, PAD, Tokeniser
from tests.unit.networks.tiny import REVIEWS, plan


def fitted(*pieces, length=8):
    return Preprocessing((), (), 0, 1.0, Tokeniser(("review",), pieces, length))


def make(preprocessing, **told):
    torch.manual_seed(0)
    return build_network(replace(plan("text_transformer"), **told), preprocessing=preprocessing, classes=2).eval()


def ask(network, tokens):
    empty = torch.empty(len(tokens), 0)
    return network(empty, empty.long(), empty, tokens)


def test_what_stands_in_the_place_of_padding_changes_nothing():
    network = make(fitted("a", "b", "c"))
    short = torch.tensor([[2, 3, PAD, PAD, PAD, PAD, PAD, PAD]])
    whole = torch.tensor([[2, 3, 4, 2, 3, 4, 2, 3]])
    with torch.no_grad():
        before = ask(network, torch.cat([short, whole]))
        network.pieces.weight[PAD] += 100
        torch.testing.assert_close(ask(network, torch.cat([short, whole])), before)
        torch.testing.assert_close(ask(network, whole), before[1:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ask(network, short), before[:1], atol=1e-5, rtol=1e-5)


def test_a_warm_start_takes_pieces_over_by_what_they_are(tmp_path):
    old, new = fitted("a", "b", "c"), fitted("c", "new", "a")
    network = make(old)
    save_trained(tmp_path, Trained(network, plan("text_transformer"), old, REVIEWS))
    fresh = make(new)
    with torch.no_grad():
        fresh.pieces.weight.zero_()
    warm_start(fresh, preprocessing=new, training=tmp_path)
    torch.testing.assert_close(fresh.pieces.weight[FIRST], network.pieces.weight[FIRST + 2])
    torch.testing.assert_close(fresh.pieces.weight[FIRST + 2], network.pieces.weight[FIRST])
    assert not fresh.pieces.weight[FIRST + 1].any()


def test_125_million_parameters_over_sequences_of_1024_can_be_declared():
    pieces = tuple(map(str, range(50_000)))
    with torch.device("meta"):
        network = make(fitted(*pieces, length=1024), width=768, depth=12, heads=12)
    assert 120e6 < sum(weight.numel() for weight in network.parameters()) < 130e6


@pytest.mark.parametrize("preprocessing", [Preprocessing((), (), 0, 1.0), replace(fitted("a"), image_size=64)])
def test_without_a_text_or_with_an_image_it_is_refused(preprocessing):
    with pytest.raises(TrainingError, match="text_transformer takes a text"):
        make(preprocessing)
