"""Training with differential privacy (DP-SGD, Abadi et al., 2016): Opacus clips, adds noise and accounts, sampling is Poisson."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from torch.optim import Optimizer

    from platform_assets.networks.course import Course
    from platform_assets.networks.feed.protocol import Feed
    from platform_assets.networks.private.steps import PrivateSteps


def private_steps(module: pl.LightningModule, optimiser: Optimizer, *, course: Course, feed: Feed) -> PrivateSteps | None:
    """Return what takes the steps of a training that declares privacy; without it None, and Opacus is not needed."""
    if course.plan.privacy is None:
        return None
    from platform_assets.networks.private.steps import begin_private

    return begin_private(module, optimiser, course=course, rows=feed.rows, steps=feed.steps)
