"""Dropout: the declared share goes, the expectation stays, the generator's state repeats the mask, evaluation changes nothing."""

from __future__ import annotations

import pytest
import torch

from platform_assets.networks.dropout import DroppedRelu


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_rest_makes_up_for_it(share):
    torch.manual_seed(0)
    layer, count = DroppedRelu(share), 400_003  # no multiple of the eight masks that one draw gives
    given = torch.ones(count)
    found = layer(given)
    nearest = max(1, round(share * 256)) / 256
    assert float((found == 0).float().mean()) == pytest.approx(nearest, abs=4 * (nearest * (1 - nearest) / count) ** 0.5)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - nearest)])
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (DroppedRelu(0.25)(torch.ones(100_000, 8)) == 0).float()
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([dropped[:-1].flatten(), dropped[1:].flatten()]))[0, 1].abs() < 0.01


def test_the_gradient_goes_where_the_value_went():
    torch.manual_seed(0)
    hidden = torch.randn(64, 32, requires_grad=True)
    found, weights = DroppedRelu(0.5)(hidden), torch.randn(64, 32)
    assert torch.equal(found != 0, (found != 0) & (hidden > 0))
    (found * weights).sum().backward()
    torch.testing.assert_close(hidden.grad, torch.where(found == 0, 0.0, 2.0 * weights))


def test_the_state_of_the_generator_repeats_the_mask():
    layer, given = DroppedRelu(0.3), torch.ones(1000)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = layer(given), layer(given)
    torch.set_rng_state(state)
    assert torch.equal(layer(given), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("layer", [DroppedRelu(0.0), DroppedRelu(0.5).eval()])
def test_nothing_is_dropped_without_a_share_or_in_evaluation(layer):
    given = torch.randn(10, 10)
    assert torch.equal(layer(given), given.relu())


def test_half_precision_stays_half():
    assert DroppedRelu(0.5)(torch.ones(10, 10, dtype=torch.bfloat16)).dtype == torch.bfloat16
