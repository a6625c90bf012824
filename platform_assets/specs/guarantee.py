"""What a training with differential privacy guarantees, as a record. Standard library only: the trainer writes it."""

from __future__ import annotations

from dataclasses import dataclass

# Compression that writes a file from the weights alone. Other methods learn from training rows anew, or put ranges of rows in it.
BLIND_METHODS = ("fuse", "pack", "int8", "dynamic")


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta) of the weights against one training row more or less, and what the accountant was told.

    `steps` are all that may have been taken, those that a killed start lost included. `order` is the Rényi order of the bound.
    """

    epsilon: float
    delta: float
    declared_epsilon: float
    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    steps: int
    planned_steps: int
    accountant: str
    order: float
    sampling: str = "Poisson"
    unit: str = "training row"

    @property
    def sentence(self) -> str:
        """Say it in a line."""
        return (
            f"epsilon {self.epsilon:.3g} (declared {self.declared_epsilon:g}) at delta {self.delta:g} for one {self.unit}, after "
            f"{self.steps} of {self.planned_steps} steps: {self.accountant}, order {self.order:g}, noise multiplier "
            f"{self.noise_multiplier:.4g}, {self.sampling} sampling at rate {self.sample_rate:.4g}, gradients "
            f"clipped to {self.max_grad_norm:g}"
        )
