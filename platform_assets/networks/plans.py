"""What a training and a compression are told, as plain dataclasses that mirror the declarations.

The mirror exists because the trainer runs where pydantic is not; a test holds the two to the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingPlan:
    """Fields of specs.model.TrainingSpec, and the target's kind."""

    architecture: str
    kind: str
    width: int = 32
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    epochs: int = 8
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 7
    precision: str = "32-true"
    threads: int | None = None


@dataclass(frozen=True)
class CompressionPlan:
    """Fields of specs.model.CompressionSpec, and the target's kind."""

    kind: str
    candidates: tuple[str, ...] = ("distil", "prune", "int8", "distil+int8", "prune+int8")
    tolerate_drop: float = 0.01
    latency_ms_p99: float = 5.0
    student_width: int = 64
    student_depth: int = 2
    student_epochs: int = 8
    prune_share: float = 0.5
    threads: int = 1
