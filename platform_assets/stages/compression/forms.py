"""What the search may try: where it starts from, what a survivor goes on as, and how a file is finished. Most promising first.

A small budget tries the head of each list. Which forms a kind of model has was found on the real hotels, the digits and MNIST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from platform_assets.networks.blocks import Blocks
from platform_assets.stages.compression.methods import GRAPH_METHODS, read_steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from platform_assets.networks.checkpoint import Trained

PICTURES = (
    "distil-s12", "distil-w64d1", "distil-s8", "distil-w48d1", "distil-s10", "distil-w128d1h", "distil-c8", "distil-s16", "distil-c4",
    "distil-s6", "distil-w64d2", "distil-s12h", "distil-c12h", "distil-w32d1", "distil-s24h", "distil-w256d1h", "distil-s4",
)  # fmt: skip
TABLES = (
    "trees-20x31", "distil-w32d1", "trees-30x16", "trees-14x31", "trees-30x31", "trees-60x31", "tables-30x5", "trees-24x16", "trees-10x31",
    "distil-w16d1v60", "trees-12x16", "distil-w64d2h", "tables-20x4", "distil-w64d1", "trees-100x31",
)  # fmt: skip
TABLES_OF_MANY_CLASSES = (
    "distil-w32d1",
    "tables-30x5",
    "distil-w64d2h",
    "distil-w16d1v60",
    "tables-20x4",
    "distil-w64d1",
    "distil-w128d2h",
)
TEXTS = ("distil-b64", "distil-b32", "distil-b16", "distil-b128")
MIXED = ("distil-w64d1", "distil-w32d1", "distil-w64d2h", "distil-w128d2h")


def list_starts(teacher: Trained, methods: Iterable[str]) -> list[str]:
    """List where the search starts from, students and cuts of the teacher in turn, as far as the methods are allowed."""
    fitted, allowed = teacher.preprocessing, set(methods)
    tables = bool(fitted.numbers or fitted.categories)
    if fitted.tokeniser is not None:
        students: tuple[str, ...] = TEXTS
    elif fitted.image_size:
        students = MIXED if tables else PICTURES
    else:
        students = TABLES if len(teacher.schema.classes) == 2 else TABLES_OF_MANY_CLASSES  # noqa: PLR2004 - one logit
    cuts = ["prune-50", *(f"exit-{kept}" for kept in _exits(teacher.network)), "low_rank-25", "prune-75"]
    chosen = [name for name in students if read_steps(name)[0].method in allowed]
    cuts = [name for name in cuts if read_steps(name)[0].method in allowed]
    turns = max(1, -(-len(chosen) // max(1, len(cuts)))) if cuts else 1
    mixed: list[str] = []
    for place in range(max(len(chosen), len(cuts) * turns)):
        mixed += chosen[place : place + 1]
        if place % turns == 0:
            mixed += cuts[place // turns : place // turns + 1]
    return mixed


def family_of(name: str) -> str:
    """Say what kind of thing learns: forms of one kind learn at about the same pace."""
    first = read_steps(name)[0]
    if first.method == "distil":
        return "convolutions" if first.option[:1] in ("c", "s") else "perceptrons"
    return "trees" if first.method in ("trees", "tables") else "cuts"


def _exits(network: nn.Module) -> list[int]:
    depths = [len(part) for part in network.modules() if isinstance(part, Blocks)]
    return list(range(1, min(depths))) if depths else [1]


def list_continuations(name: str, methods: Iterable[str]) -> list[str]:
    """List what a survivor goes on as: cut to half, and tuned for four bits."""
    allowed, steps = set(methods), read_steps(name)
    if steps[-1].method in ("trees", "tables"):
        return []
    if steps[0].method != "distil":
        return []
    further = ["qat-4", "prune-50", "prune-50+qat-4"]
    return [f"{name}+{step}" for step in further if {one.method for one in read_steps(step)} | {"pack"} <= allowed]


def list_finishes(name: str, methods: Iterable[str], *, writes_itself: bool) -> list[str]:
    """List the files made from one part, itself among them; where time is short the last are left out."""
    allowed, last = set(methods), read_steps(name)[-1].method if name != "teacher" else ""
    if last == "qat":
        steps = ["pack-4"]
    elif last == "trees":  # one node: nothing in it can be stored in fewer bits
        steps = [""]
    elif writes_itself:
        steps = ["", "pack-8", "pack-4", "pack-16", "static", "int8"]
    else:
        steps = ["", "fuse+pack-8", "fuse+pack-4", "fuse", "int8", "static", "pack-8", "int8-4", "dynamic", "dynamic-c"]
    fit = [step for step in steps if not step or all(one.method in allowed for one in read_steps(step))]
    return [(f"{name}+{step}" if name != "teacher" else step) if step else name for step in fit]


def split_name(name: str) -> tuple[str, list[str]]:
    """Split a candidate's name into its part, made of networks, and the steps that work on files."""
    if name == "teacher":
        return name, []
    steps = read_steps(name)
    first = next((place for place, step in enumerate(steps) if step.method in GRAPH_METHODS), len(steps))
    return "+".join(str(step) for step in steps[:first]) or "teacher", [str(step) for step in steps[first:]]
