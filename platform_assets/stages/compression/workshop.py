"""Where the search keeps what it makes: parts (networks and trees, taught so far) and the files that are made of them.

`parts/<name>/` holds part.pt with what was learnt and figures.json, `candidates/<name>/` preprocessing.json and model.onnx. Each file is
written beside and renamed, so what stands is whole and a killed search goes on with it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from platform_assets.networks.checkpoint import PREPROCESSING, Trained, write_json, write_text
from platform_assets.networks.export import export_onnx
from platform_assets.networks.unpacking import load_module
from platform_assets.specs.record_json import to_json
from platform_assets.stages.compression.forms import split_name
from platform_assets.stages.compression.graph import write_graph
from platform_assets.stages.compression.methods import CompressionRefusedError, Step, load_method, read_steps
from platform_assets.stages.compression.methods.qat import settle
from platform_assets.stages.compression.teaching import busy_seconds, teach

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.stages.compression.methods import Bench
    from platform_assets.stages.compression.teaching import Teaching

TEACHER = "teacher"


class Clock:
    """Computing seconds of the budget that are left, over all starts of a search."""

    def __init__(self, root: Path, budget: float) -> None:
        self._file, self._budget, self._start = root / "spent.json", budget, busy_seconds()
        self._before = json.loads(self._file.read_text())["seconds"] if self._file.is_file() else 0.0

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._before + busy_seconds() - self._start

    def left(self) -> float:
        """Seconds that are left, none at least."""
        return max(0.0, self._budget - self.spent)

    def keep(self) -> None:
        """Remember what is spent."""
        write_json(self._file, {"seconds": self.spent})


@dataclass
class Part:
    """A network or trees with what is known of it: `rounds` of learning it has had, what it loses, and what chance adds to that."""

    name: str
    model: Any
    rounds: int = 0
    drop: float = float("inf")
    drop_error: float = 0.0
    cpu_us_b1: float = 0.0
    cpu_us_b32: float = 0.0
    size_bytes: int = 0

    @property
    def surely_lost(self) -> float:
        """Loss and one standard error of it."""
        return self.drop + self.drop_error

    @property
    def learns(self) -> bool:
        """Whether more time makes it better."""
        return self.name != TEACHER and load_method(read_steps(self.name)[-1].method).RATE > 0

    @property
    def writes_itself(self) -> bool:
        """Whether it is a student, with a graph of its own."""
        return hasattr(self.model, "write")

    @property
    def parameters(self) -> int:
        """Count weights, or cuts and answers."""
        if isinstance(self.model, nn.Module):
            return sum(weight.numel() for weight in self.model.parameters())
        return int(self.model.parameters)


class Workshop:
    """Makes each thing once and finds it again."""

    def __init__(self, root: Path, teaching: Teaching, *, bench: Bench) -> None:
        self.root, self.teaching, self.bench = root, teaching, bench
        self._parts: dict[str, Part] = {TEACHER: Part(TEACHER, teaching.teacher.network)}

    def part(self, name: str) -> Part:
        """Return a part: as it was left, or newly started from the one before its last step."""
        if name not in self._parts:
            folder = self.root / "parts" / name
            if (folder / "figures.json").is_file():
                # A whole network and no weights alone, because one that was pruned has no plan it could be built from.
                model = load_module(folder / "part.pt", known={type(layer) for layer in self.teaching.teacher.network.modules()})
                self._parts[name] = Part(**{**json.loads((folder / "figures.json").read_text()), "model": model})
            else:
                last = read_steps(name)[-1]
                self._allow(last)
                model = load_method(last.method).start(self._before(name).model, last.option, self.teaching)
                self._parts[name] = Part(name, model)
        return self._parts[name]

    def _before(self, name: str) -> Part:
        """Return the part that a part's last step was applied to."""
        return self.part(name.rpartition("+")[0] or TEACHER)

    def teach(self, part: Part, *, seconds: float, rounds: int) -> None:
        """Let a part learn until it has had so many rounds; what it has had it is not taught again."""
        if part.learns and part.rounds < rounds:
            step = read_steps(part.name)[-1]
            hints = step.method == "distil" and step.option.endswith("h")
            rate = load_method(step.method).RATE * (0.5 if part.rounds else 1.0)
            part.model = teach(part.model, self.teaching, seconds=seconds, rate=rate, name=part.name, hints=hints)
            if step.method == "qat":
                part.model = settle(part.model, plain=self._before(part.name).model)
        part.rounds = rounds

    def keep(self, part: Part) -> None:
        """Write a part down; figures.json comes last."""
        folder = self.root / "parts" / part.name
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".part.pt.{os.getpid()}"
        torch.save(part.model, beside)
        beside.replace(folder / "part.pt")
        figures = asdict(Part(**{**vars(part), "model": None}))
        write_json(folder / "figures.json", {name: value for name, value in figures.items() if name != "model"})

    def draw(self, part: Part, target: Path) -> Path:
        """Write a part as a float file, always anew."""
        target.parent.mkdir(parents=True, exist_ok=True)
        model = part.model
        if part.name.rpartition("+")[2].startswith("qat") and not part.rounds:
            model = settle(model, plain=self._before(part.name).model)
        if part.writes_itself:
            write_graph(model.write(self.teaching.teacher.preprocessing), target)
        else:
            teacher = self.teaching.teacher
            export_onnx(Trained(model, teacher.plan, teacher.preprocessing, teacher.schema), target)
        return target

    def finish(self, name: str) -> Path:
        """Return the model.onnx of a candidate, made unless it stands."""
        target = self.root / "candidates" / name / "model.onnx"
        if target.is_file():
            return target
        part, steps = split_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target.with_name(PREPROCESSING), to_json(self.teaching.teacher.preprocessing))
        source = (
            self.root / "candidates" / (part if not steps else "+".join([*([part] if part != TEACHER else []), *steps[:-1]]) or TEACHER)
        )
        if not steps:
            return self.draw(self.part(part), target)
        before = source / "model.onnx"
        if not before.is_file():
            before = self.finish(source.name)
        step = read_steps(steps[-1])[0]
        self._allow(step)
        load_method(step.method).write(before, target, step.option, self.bench)
        return target

    def _allow(self, step: Step) -> None:
        if step.method not in self.teaching.plan.methods:
            raise CompressionRefusedError(f"{step.method} is not among compression.methods")
