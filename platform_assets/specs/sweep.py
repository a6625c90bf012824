"""What a search over hyperparameters has found so far. Searching is the sweep's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sweep:
    """A search over hyperparameters so far: its best trial's number, leading metric on the calibration rows and values.

    `declared` is the fingerprint of what was searched, `first` the declared values, which are the first trial.
    """

    training_set: str
    declared: str
    trials: int
    counts: dict[str, int]
    best: int | None
    value: float | None
    changes: dict[str, bool | int | float | str]
    first: dict[str, bool | int | float | str]

    @property
    def beats_declared(self) -> bool:
        """Whether another trial than the declared values did best."""
        return self.best is not None and self.changes != self.first
