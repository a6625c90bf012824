"""What became of a model's retrainings: the record of the asset `retraining_outcome`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OutcomeWord = Literal["none", "pending", "helped", "did_not_help", "undecided", "failed", "cut_off", "data_at_fault", "needs_a_person"]


@dataclass(frozen=True)
class RetrainingOutcomeRecord:
    """What became of the newest retraining, or what stands in the way of the next one.

    `gain`: share of the loss that it took away on the newest labelled rows, None where that is not known. `useless`: retrainings in a row
    that won nothing. `quiet_until`: end of the cool-down on the data's clock.
    """

    outcome: OutcomeWord
    sentence: str
    verdict_id: str = ""
    trigger: str = ""
    at: str = ""
    gain: float | None = None
    retrainings: int = 0
    useless: int = 0
    quiet_until: str = ""
