"""Rules of a training that declares differential privacy: what would spend more than is counted, or cannot be done row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.errors import Fault
from platform_assets.specs.guarantee import BLIND_METHODS
from platform_assets.specs.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.specs.model import ModelSpec


def check_privacy(model: ModelSpec) -> Iterator[Fault]:
    """Hold a model's declared privacy against the rest of its declaration."""
    training = model.training
    if training.privacy is None:
        return
    if training.architecture == "custom":
        message = "a network of your own, whose loss may mix rows, cannot be made private; take one of the platform's architectures"
        yield Fault("", "training.architecture", message)
    if training.dropout:
        yield Fault("", "training.dropout", f"is {training.dropout:g}; gradients row by row are taken without dropout: write dropout: 0")
    if training.precision != "32-true":
        yield Fault("", "training.precision", f"is {training.precision}; gradients row by row are taken in 32-true")
    for field in ("compile", "gradient_checkpointing"):
        if getattr(training, field):
            yield Fault("", f"training.{field}", "gradients row by row are taken without it; leave it out")
    if training.strategy != "ddp":
        yield Fault("", "training.strategy", f"is {training.strategy}; a private training is one process; leave it out")
    if training.search:
        yield Fault("", "training.search", "every trial would spend epsilon on the same rows, and nobody counts that; leave the search out")
    if seen := [method for method in model.compression.methods if method not in BLIND_METHODS]:
        right = f"methods: [{', '.join(BLIND_METHODS)}]"
        yield Fault("", "compression.methods", f"{listed(seen)} look at rows again, which training.privacy does not count; right: {right}")
