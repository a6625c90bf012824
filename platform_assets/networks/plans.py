"""What a training and a compression are told, as plain dataclasses that mirror the declarations.

The mirror exists because the trainer runs where pydantic is not; a test holds the two to the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PrivacyPlan:
    """Fields of specs.model.PrivacySpec."""

    epsilon: float
    delta: float
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """Fields of specs.model.LearningSpec, and the target's kind: what decides the weights."""

    architecture: str
    kind: str
    module: str | None = None
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    width: int = 32
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    max_tokens: int = 128
    vocabulary: int = 4000
    epochs: int = 8
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    seed: int = 7
    precision: str = "32-true"
    threads: int | None = None
    privacy: PrivacyPlan | None = None


@dataclass(frozen=True)
class RunPlan:
    """How a training runs, which does not decide what it learns.

    `micro_batches` are the parts that each step's rows are cut into; a checkpoint is written when `checkpoint_seconds` or
    `checkpoint_steps` have passed, whichever comes first, and the newest `keep_checkpoints` stay. `trace_steps` steps are traced with
    torch.profiler (0: none), machine figures are taken every `sample_seconds`.
    """

    strategy: str = "ddp"
    micro_batches: int = 1
    compile: bool = False
    gradient_checkpointing: bool = False
    checkpoint_seconds: float = 300.0
    checkpoint_steps: int | None = None
    keep_checkpoints: int = 2
    sample_seconds: float = 2.0
    trace_steps: int = 3


@dataclass(frozen=True)
class CompressionPlan:
    """Fields of specs.model.CompressionSpec but `compute`, its budget in seconds, the target's kind, and what a core costs in an hour."""

    kind: str
    budget_seconds: float = 60.0
    methods: tuple[str, ...] = (
        "distil",
        "trees",
        "tables",
        "prune",
        "low_rank",
        "exit",
        "qat",
        "fuse",
        "pack",
        "int8",
        "static",
        "dynamic",
    )
    tolerate_drop: float = 0.01
    latency_ms_p99: float = 5.0
    groups: tuple[str, ...] = ()
    group_drop: float = 0.05
    batch_sizes: tuple[int, ...] = (1, 2, 8, 32, 256)
    threads: int = 1
    aed_per_core_hour: float = 0.0
