"""How much noise a declared epsilon asks for, and how many steps it pays: Opacus' Rényi accountant, an upper bound.

Mironov, Talwar and Zhang, "Rényi differential privacy of the sampled Gaussian mechanism", 2019: neighbours differ by one row, each row
is in a batch by a coin of its own. What is spent follows from noise, rate and number of steps, so the number is all that must be kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.errors import TrainingError
from platform_assets.specs.guarantee import Guarantee

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from platform_assets.networks.plans import PrivacyPlan

# Every set of orders gives a bound. Few of them lie between whole numbers: there the divergence is a series, at whole ones a sum.
ORDERS = [1.25, 1.5, 1.75, 2.5, 3.5, 4.5, 5.5, *(float(order) for order in (*range(2, 64), 96, 128, 192, 256, 384, 512))]
LEAST_NOISE, _MOST_NOISE = 0.3, 1e4  # below, a guarantee is a word, and the series hardly ends
_NEAR = 1.002


@dataclass(frozen=True)
class Budget:
    """A declared privacy over `planned_steps` steps, each drawing every row at `sample_rate`."""

    privacy: PrivacyPlan
    sample_rate: float
    planned_steps: int

    def __post_init__(self) -> None:
        """Refuse what would guarantee nothing."""
        if not self.planned_steps > 0 or not 0 < self.sample_rate <= 1:
            raise TrainingError(f"privacy cannot be accounted for {self.planned_steps} steps at rate {self.sample_rate:g}")

    @cached_property
    def noise_multiplier(self) -> float:
        """Deviation of the noise in units of max_grad_norm: nearly the smallest that keeps the declared epsilon over the planned steps."""
        low = high = LEAST_NOISE
        while not self._keeps(high):
            low, high = high, 2 * high
            if high > _MOST_NOISE:
                raise TrainingError(
                    f"training.privacy: no noise keeps epsilon {self.privacy.epsilon:g} at delta {self.privacy.delta:g} over "
                    f"{self.planned_steps} steps at rate {self.sample_rate:.3g}; raise epsilon, or lower epochs or batch_size"
                )
        while high > low * _NEAR:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self._keeps(middle) else (middle, high)
        return high

    def _keeps(self, noise: float) -> bool:
        return self._convert(self._rates(noise) * self.planned_steps)[0] <= self.privacy.epsilon

    def _rates(self, noise: float) -> NDArray[np.float64]:
        """Rényi divergence of one step at each order; those of several steps add up."""
        from opacus.accountants.analysis.rdp import compute_rdp

        return np.asarray(compute_rdp(q=self.sample_rate, noise_multiplier=noise, steps=1, orders=ORDERS))

    def _convert(self, divergences: NDArray[np.float64]) -> tuple[float, float]:
        from opacus.accountants.analysis.rdp import get_privacy_spent

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the best order is the last one: a bound all the same
            epsilon, order = get_privacy_spent(orders=ORDERS, rdp=divergences, delta=self.privacy.delta)
        return float(epsilon), float(order)

    @cached_property
    def _of_a_step(self) -> NDArray[np.float64]:
        return self._rates(self.noise_multiplier)

    def spent(self, steps: int) -> tuple[float, float]:
        """Return epsilon after so many steps, and the order of the bound."""
        return self._convert(self._of_a_step * steps) if steps else (0.0, 0.0)

    @cached_property
    def most_steps(self) -> int:
        """Count the steps that the declared epsilon pays, which are the planned ones or a few more."""
        low, high = self.planned_steps, 2 * self.planned_steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.spent(middle)[0] <= self.privacy.epsilon else (low, middle)
        return low

    def guarantee(self, steps: int) -> Guarantee:
        """Return what holds of weights that so many steps may have made."""
        import opacus

        epsilon, order = self.spent(steps)
        return Guarantee(
            epsilon=epsilon, delta=self.privacy.delta, declared_epsilon=self.privacy.epsilon, max_grad_norm=self.privacy.max_grad_norm,
            noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=steps, planned_steps=self.planned_steps,
            accountant=f"Rényi (opacus {opacus.__version__})", order=order,
        )  # fmt: skip
