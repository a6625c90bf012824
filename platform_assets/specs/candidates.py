"""What a search for compressed candidates hands on: files with their figures, and why each other one is not. Records as in `records`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Faithfulness:
    """How far a candidate says what its teacher says, on the calibration rows.

    Shares of rows with the same most probable class: of all rows, of the tenth that the teacher is surest of, and with values hidden and
    unknown. `group_drop` is the largest loss of accuracy in a group, that of `group`; calibration errors are expected ones over ten bins.
    """

    agreement: float
    tail_agreement: float
    hidden_agreement: float
    group: str
    group_drop: float
    calibration_error: float
    teacher_calibration_error: float
    batch_difference: float


@dataclass(frozen=True)
class Candidate:
    """One ONNX file with its figures; the teacher is a candidate named `teacher`.

    `drop` is the loss of the leading metric on the calibration rows, `drop_error` what chance adds to it there; by both one is chosen.
    `metrics` and `holdout_drop` are of the holdout, which is looked at once, to report. Ranges hold the median of CPU time with a
    confidence of 95 %.
    """

    name: str
    digest: str
    size_bytes: int
    parameters: int
    metrics: dict[str, float]
    drop: float
    cpu_us_b1: float
    cpu_us_b32: float
    latency_ms_p50: float
    latency_ms_p99: float
    max_difference: float
    agreement: float
    calibration: dict[str, float] = field(default_factory=dict)
    drop_error: float = 0.0
    holdout_drop: float = 0.0
    cpu_us_b1_range: tuple[float, ...] = ()
    cpu_us_b32_range: tuple[float, ...] = ()
    aed_per_million: float = 0.0
    faithfulness: Faithfulness | None = None

    @property
    def surely_lost(self) -> float:
        """The loss with one standard error: on few rows a worse candidate must not pass for an equal one by chance."""
        return self.drop + self.drop_error


@dataclass(frozen=True)
class Rejection:
    """A candidate that was not chosen or could not be made, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class SearchResult:
    """All measured candidates, the teacher among them, and those that could not be made."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, and why each other one was not."""

    chosen: Candidate
    front: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    candidates: tuple[Candidate, ...] = ()
