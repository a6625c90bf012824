"""Blocks: what is not seen has no say, the fused kernel gives the same, and activations computed again give the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from platform_assets.errors import TrainingError
from platform_assets.networks import blocks
from platform_assets.networks.architectures import build_network
from platform_assets.networks.blocks import Attention, Encoder, recompute_activations
from platform_assets.networks.feed.encoded import to_arrays
from platform_assets.networks.preprocessing import fit_preprocessing
from platform_assets.networks.rows import read_rows
from tests.unit.networks.tiny import CASES, plan, write_set


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(width=16, depth=2, heads=2, dropout=0.0, classes=3).eval()


def test_a_token_that_is_not_seen_changes_nothing(encoder):
    tokens = torch.randn(4, 7, 16)
    seen = torch.rand(4, 7) < 0.5
    other = torch.where(seen.unsqueeze(-1), tokens, torch.randn(4, 7, 16) * 100)
    torch.testing.assert_close(encoder(tokens, seen), encoder(other, seen))
    assert not torch.allclose(encoder(tokens), encoder(other))


def test_a_row_of_which_all_is_seen_is_as_without_a_mask(encoder):
    tokens = torch.randn(3, 5, 16)
    torch.testing.assert_close(encoder(tokens, torch.ones(3, 5, dtype=torch.bool)), encoder(tokens))


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_gives_what_the_written_out_products_give(monkeypatch, masked):
    torch.manual_seed(0)
    attention = Attention(16, 2)
    tokens = torch.randn(3, 80, 16)
    seen = (torch.rand(3, 1, 1, 80) < 0.7) if masked else None
    fused = attention(tokens[:, :4], tokens, seen)
    monkeypatch.setattr(blocks, "FUSED_FROM", 1000)
    torch.testing.assert_close(attention(tokens[:, :4], tokens, seen), fused, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["tabular_transformer", "text_transformer", "vision_transformer", "convolutional"])
def test_activations_computed_again_give_the_same_gradients_dropout_included(tmp_path, architecture):
    make, schema, kind = CASES[architecture]
    data = write_set(tmp_path, make(), schema)
    preprocessing = fit_preprocessing(data, schema=schema)
    *inputs, _ = map(torch.from_numpy, to_arrays(read_rows(data, "train", schema=schema), preprocessing=preprocessing))

    def gradients(*, again):
        torch.manual_seed(5)
        network = build_network(plan(architecture, kind=kind), preprocessing=preprocessing, classes=len(schema.classes)).train()
        kept = []
        if again:
            recompute_activations(network)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
            loss = network(*inputs).square().sum()
        loss.backward()
        return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}, sum(kept)

    (plain, much), (again, little) = gradients(again=False), gradients(again=True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, msg=name)
    assert little < 0.5 * much


def test_a_network_without_blocks_cannot_compute_them_again():
    with pytest.raises(TrainingError, match="gradient_checkpointing was asked for, but Linear has no blocks"):
        recompute_activations(nn.Linear(2, 2))
