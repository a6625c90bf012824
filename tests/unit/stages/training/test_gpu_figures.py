"""The script behind the GPU row: its arithmetic is what torch counts, and it runs where no GPU is."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from platform_assets.networks.architectures import build_network
from platform_assets.networks.plans import TrainingPlan
from platform_assets.networks.preprocessing import Preprocessing
from platform_assets.networks.tokens import FIRST, Tokeniser
from platform_assets.stages.training.gpu_figures import CLASSES, LARGE, SMALL, flops_a_row, main, measure


def test_the_arithmetic_of_a_row_is_what_torch_counts():
    plan = TrainingPlan("text_transformer", "binary", width=SMALL.width, depth=SMALL.depth, heads=SMALL.heads, dropout=0.0)
    text = Tokeniser(("text",), tuple(str(number) for number in range(SMALL.vocabulary - FIRST)), SMALL.length)
    network = build_network(plan, preprocessing=Preprocessing((), (), 0, 1.0, text), classes=CLASSES)
    tokens = torch.randint(FIRST, SMALL.vocabulary, (1, SMALL.length))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 0), torch.empty(1, 0, dtype=torch.long), torch.empty(1, 0), tokens).sum()
    assert 3 * counter.get_total_flops() == flops_a_row(SMALL)


def test_the_large_network_has_about_125_million_weights():
    weights = LARGE.depth * (4 + 2 * 4) * LARGE.width**2 + LARGE.vocabulary * LARGE.width
    assert 115e6 < weights < 135e6


def test_the_small_network_runs_through_loop_and_feed_anywhere():
    found = measure(SMALL, compiled=False, micro_batches=2)
    assert found["sequence"] == 16
    assert found["samples_per_second"] > 0
    assert 0 <= found["data_wait"] <= 1


def test_without_a_gpu_the_figures_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    assert "there is none here" in capsys.readouterr().err
