"""The picture has a panel for what was measured and none for what was not."""

import warnings

import numpy as np
import pytest

from platform_assets.stages.telemetry import pictures
from platform_assets.stages.telemetry.pictures import draw_telemetry
from tests.unit.stages.telemetry.tiny import gpu, sample


@pytest.fixture
def drawn(monkeypatch):
    """What `draw_telemetry` draws, by the title of each panel: its lines' values."""
    figures = []
    real = pictures._figure
    monkeypatch.setattr(pictures, "_figure", lambda panels: figures.append(real(panels)) or figures[-1])

    def draw(samples):
        with warnings.catch_warnings(action="error"):
            assert draw_telemetry(samples).startswith(b"\x89PNG")
        _, axes = figures[-1]
        return {one.get_title(): [line.get_ydata() for line in one.get_lines()] for one in axes}

    return draw


def test_a_cpu_training_shows_loss_throughput_wait_cores_and_memory(drawn):
    panels = drawn([sample(2.0 * n, loss=1 / (n + 1)) for n in range(50)])
    assert list(panels) == ["Training loss", "Rows a second", "Waiting for data, % of the time", "Cores in use", "Memory, GiB"]
    assert panels["Training loss"][0][0] == 1
    assert panels["Rows a second"][0] == pytest.approx(1000)


def test_gpus_bring_four_more_and_processes_are_added_up(drawn):
    panels = drawn(
        [sample(2.0 * n + 0.3 * rank, rank=rank, gpus=(gpu(rank, busy=0.2 + 0.6 * rank),)) for n in range(50) for rank in (0, 1)]
    )
    assert len(panels) == 9
    assert panels["Rows a second"][0] == pytest.approx(2000)
    assert panels["Cores in use"][0] == pytest.approx(2)
    assert panels["GPU at work, % of the time"][0] == pytest.approx(50)


def test_a_single_sample_without_figures_of_the_loop_can_be_drawn(drawn):
    assert list(drawn([sample(5.0, loss=None, samples_per_second=None, data_wait=None)])) == ["Cores in use", "Memory, GiB"]


def test_a_figure_that_came_late_is_not_drawn_from_the_start(drawn):
    samples = [sample(2.0 * n, loss=0.7 if n == 9 else None, samples_per_second=None if n < 5 else 1000.0) for n in range(10)]
    panels = drawn(samples)
    assert np.isnan(panels["Training loss"][0]).tolist() == [True] * 9 + [False]
    assert np.isnan(panels["Rows a second"][0]).tolist() == [True] * 5 + [False] * 5
    assert not np.isnan(panels["Cores in use"][0]).any()


def test_a_line_breaks_where_nothing_ran_also_when_it_is_thinned(drawn):
    times = [2.0 * n for n in range(900)] + [10_000 + 2.0 * n for n in range(900)]
    rate = drawn([sample(at) for at in times])["Rows a second"][0]
    away = np.isnan(rate)
    assert 0.6 < away.mean() < 0.72  # 8,200 of 11,800 seconds
    assert np.count_nonzero(np.diff(away.astype(int))) == 2
    assert rate[~away] == pytest.approx(1000)
