"""Compression methods, one file each, named as in the declaration; `a-1+b-2` is method b, option 2, applied to what a, option 1, gave.

A file that works on networks offers `start(model, option, teaching) -> model` and RATE, at which what it gave goes on learning; one that
works on ONNX files offers `write(source, target, option, bench)`. A method that cannot be applied raises CompressionRefusedError with the
reason, which becomes the candidate's rejection.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

NETWORK_METHODS = ("distil", "trees", "tables", "prune", "low_rank", "exit", "qat")
GRAPH_METHODS = ("fuse", "pack", "int8", "static", "dynamic")


class CompressionRefusedError(StageError):
    """This method cannot be applied to this network; the message says why."""


@dataclass(frozen=True)
class Bench:
    """What a method that works on files may ask: inputs of some calibration rows, and how a file answers them."""

    inputs: dict[str, NDArray[Any]]
    answer: Callable[[Path | bytes], NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """One method with its option."""

    method: str
    option: str = ""

    def __str__(self) -> str:
        """Write it as it stands in a candidate's name."""
        return f"{self.method}-{self.option}" if self.option else self.method


def read_steps(name: str) -> tuple[Step, ...]:
    """Read the steps of a candidate's name; an unknown method is refused."""
    steps = tuple(Step(*part.split("-", 1)) for part in name.split("+"))
    known = (*NETWORK_METHODS, *GRAPH_METHODS)
    for step in steps:
        if step.method not in known:
            raise CompressionRefusedError(f"no compression method {step.method!r}; known: {', '.join(known)}")
    return steps


def load_method(name: str) -> Any:
    """Import a method's file."""
    return import_module(f"{__name__}.{name}")
