"""torch.compile by declaration: what is compiled, and what is said where this machine cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from platform_assets.errors import TrainingError


def compile_network(module: nn.Module) -> None:
    """Have the network of a learner, or the learner itself, compiled at its first steps: half a minute, some more for other shapes."""
    getattr(module, "network", module).compile()


@contextmanager
def refusal_told() -> Iterator[None]:
    """Around the steps of a compiled network: a compiler that is missing or gives up is a TrainingError of one sentence."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        said = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"training.compile was asked for and this machine cannot compile the network ({said}); "
            "install a C++ compiler (g++) or leave it out"
        ) from error
