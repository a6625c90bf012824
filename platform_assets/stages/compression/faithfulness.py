"""Whether a candidate says what its teacher says: in every group, where the teacher is sure, and when values are missing or unknown.

A candidate that is right on average and wrong for a group is refused, with the group's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.measures import leading, measure
from platform_assets.specs.candidates import Faithfulness
from platform_assets.stages.compression.measure import INVARIANCE, Inputs, answer, find_batch_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from platform_assets.networks.plans import CompressionPlan
    from platform_assets.networks.rows import Rows
    from platform_assets.specs.records import FeatureSchema

GROUP_ROWS = 30  # a smaller group proves nothing
CHANCE = 0.01  # over all groups together, after Bonferroni
TAIL, TAIL_AGREEMENT = 0.1, 0.9  # of the rows, those that the teacher is surest of; the least share said alike
HIDDEN, HIDDEN_AGREEMENT = 1 / 3, 0.8  # of a row's values, the share that is hidden or unknown; the least share said alike
CALIBRATION_ERROR = 0.05  # that a candidate may have more than its teacher
CALIBRATION_BINS = 10
HIDDEN_ROWS = 512
UNKNOWN = "\x00never seen"
BOOTSTRAPS, BOOTSTRAP_CASES = 50, 20_000


@dataclass(frozen=True)
class Exam:
    """Rows with the teacher's answers to them as they are, and with values hidden; groups are masks over the rows."""

    inputs: Inputs
    labels: NDArray[np.int64]
    said: NDArray[np.float32]
    groups: dict[str, NDArray[np.bool_]]
    hidden: Inputs
    hidden_said: NDArray[np.float32]


def make_exam(rows: Rows, inputs: Inputs, *, teacher: Any, schema: FeatureSchema, groups: Sequence[str], seed: int) -> Exam:
    """Ask the teacher's session about the rows. `groups` are category features; all where none is named. So are three classes or more."""
    rng = np.random.default_rng(seed)
    # Of two classes, accuracy in one is a matter of where 0.5 lies, which the calibration error judges.
    classes = schema.classes if len(schema.classes) > 2 else ()  # noqa: PLR2004
    found = {f"{schema.target} {name}": rows.labels == place for place, name in enumerate(classes)}
    for feature, column in zip(schema.of_kind("category"), rows.categorical, strict=True):
        if not groups or feature.name in groups:
            values = np.asarray(column.to_pylist(), object)
            for value in sorted(set(values.tolist())):
                found[f"{feature.name} {value or 'missing'}"] = values == value
    found = {name: mask for name, mask in found.items() if mask.sum() >= GROUP_ROWS}
    chosen = rng.permutation(len(rows))[:HIDDEN_ROWS]
    hidden = {name: part[chosen].copy() for name, part in inputs.items()}
    if "numeric" in hidden:
        hidden["numeric"][rng.random(hidden["numeric"].shape) < HIDDEN] = np.nan
    if "categorical" in hidden:
        drawn = rng.random(hidden["categorical"].shape)
        hidden["categorical"][drawn < HIDDEN / 2] = ""
        hidden["categorical"][(drawn >= HIDDEN / 2) & (drawn < HIDDEN)] = UNKNOWN
    if "text" in hidden:
        hidden["text"][rng.random(hidden["text"].shape) < HIDDEN] = ""
    return Exam(inputs, rows.labels, answer(teacher, inputs), found, hidden, answer(teacher, hidden))


def examine(session: Any, found: NDArray[np.float32], exam: Exam, *, plan: CompressionPlan) -> tuple[Faithfulness, str | None]:
    """Return the figures of a candidate that answered `found`, and why it is refused, if it is."""
    hidden = answer(session, exam.hidden)
    alike = found.argmax(1) == exam.said.argmax(1)
    sure = exam.said.max(1) >= np.quantile(exam.said.max(1), 1 - TAIL)
    group, drop, proven = _worst_group(found, exam, limit=plan.group_drop)
    figures = Faithfulness(
        agreement=float(alike.mean()), tail_agreement=float(alike[sure].mean()),
        hidden_agreement=float((hidden.argmax(1) == exam.hidden_said.argmax(1)).mean()), group=group, group_drop=drop,
        calibration_error=calibration_error(found, exam.labels), teacher_calibration_error=calibration_error(exam.said, exam.labels),
        batch_difference=find_batch_difference(session, exam.inputs, sizes=plan.batch_sizes),
    )  # fmt: skip
    finite = bool(np.isfinite(found).all() and np.isfinite(hidden).all())
    return figures, _find_fault(figures, finite=finite, proven=proven, plan=plan)


def _find_fault(found: Faithfulness, *, finite: bool, proven: bool, plan: CompressionPlan) -> str | None:
    alone, asked = found.batch_difference, HIDDEN_AGREEMENT
    more = found.calibration_error - found.teacher_calibration_error
    faults = (
        (not finite, "it answers with values that are not numbers"),
        (not alone <= INVARIANCE, f"a row alone and in a batch differ by {alone:.2g}, allowed is {INVARIANCE:g}"),
        (proven, f"{found.group} loses {found.group_drop:.3f} accuracy against the teacher, {plan.group_drop:g} is allowed in a group"),
        (
            not found.tail_agreement >= TAIL_AGREEMENT,
            f"it agrees with {found.tail_agreement:.0%} of what the teacher is surest of, {TAIL_AGREEMENT:.0%} is asked",
        ),
        (
            not more <= CALIBRATION_ERROR,
            f"its calibration error is {more:.3f} above the teacher's, {CALIBRATION_ERROR:g} is allowed",
        ),
        (
            not found.hidden_agreement >= asked,
            f"with values missing and unknown it agrees with the teacher in {found.hidden_agreement:.0%} of the rows, {asked:.0%} is asked",
        ),
    )
    return next((why for fault, why in faults if fault), None)


def chance_of_loss(found: NDArray[np.float32], exam: Exam, *, kind: str, cases: int, seed: int) -> float:
    """Standard error of the loss of the leading metric against the teacher, by a paired bootstrap over cases; 0 where no answer differs.

    Rows are `cases` and, after them, copies of them in the same order: a case is drawn with its copies. Of many cases a share is drawn.
    """
    if np.array_equal(found, exam.said):
        return 0.0
    random, drawn = np.random.default_rng(seed), min(cases, BOOTSTRAP_CASES)
    copies = np.arange(0, len(exam.labels), cases)[:, None]
    losses = []
    for _ in range(BOOTSTRAPS):
        rows = (random.integers(0, cases, drawn) + copies).ravel()
        ours, theirs = (leading(measure(exam.labels[rows], probabilities=said[rows], kind=kind), kind=kind) for said in (found, exam.said))
        losses.append(theirs - ours)
    return float(np.std(losses) * (drawn / cases) ** 0.5)


def calibration_error(said: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Expected calibration error of the most probable class (Guo et al., 2017), not a number where an answer is none."""
    sure, right = said.max(1), said.argmax(1) == labels
    if not np.isfinite(sure).all():
        return float("nan")
    place = np.minimum((sure * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(place, weights=sure, minlength=CALIBRATION_BINS) - np.bincount(place, weights=right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def _worst_group(found: NDArray[np.float32], exam: Exam, *, limit: float) -> tuple[str, float, bool]:
    """Group of the largest loss, and whether one loses more than the limit by more than chance (exact test of McNemar, one side)."""
    from scipy.stats import binomtest

    ours, theirs = found.argmax(1) == exam.labels, exam.said.argmax(1) == exam.labels
    worst, drop, proven = "", 0.0, False
    for name, mask in exam.groups.items():
        lost, won = int((theirs & ~ours & mask).sum()), int((ours & ~theirs & mask).sum())
        loss = (lost - won) / int(mask.sum())
        sure = loss > limit and binomtest(lost, lost + won, alternative="greater").pvalue < CHANCE / len(exam.groups)
        if (sure, loss) > (proven, drop) or not worst:
            worst, drop, proven = name, loss, sure
    return worst, drop, proven
