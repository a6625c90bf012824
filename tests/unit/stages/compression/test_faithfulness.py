"""Right on average and wrong for a group, on the tails, in its confidence or with values missing: each is refused by its own reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.networks.plans import CompressionPlan
from platform_assets.networks.rows import Rows
from platform_assets.stages.compression.faithfulness import chance_of_loss, examine, make_exam
from platform_assets.stages.compression.measure import median_range
from tests.unit.networks.tiny import TABULAR

ROWS = 1200
PLAN = CompressionPlan("binary", batch_sizes=(1, 7, 64))
RNG = np.random.default_rng(3)
CHANNEL = np.where(np.arange(ROWS) % 6 == 0, "desk", "web")
PRICE = RNG.uniform(0, 1, ROWS).astype(np.float32)
LABELS = (RNG.random(ROWS) < PRICE).astype(np.int64)
NUMERIC = np.stack([PRICE, np.zeros(ROWS), np.ones(ROWS)], 1).astype(np.float32)
COLUMNS = (pa.array(CHANNEL.tolist()), pa.array(["AE"] * ROWS))
SAMPLE = Rows(NUMERIC, COLUMNS, np.empty((ROWS, 0), np.float32), LABELS)
INPUTS = {"numeric": NUMERIC, "categorical": SAMPLE.strings()}


class Session:
    """A model given as a function from price and channel to the probability of the second class."""

    def __init__(self, says):
        self._says = says

    def run(self, _, given):
        price = np.nan_to_num(given["numeric"][:, 0], nan=0.5).astype(np.float64)
        share = np.asarray(self._says(price, given["categorical"][:, 0]), np.float32)
        return [np.stack([1 - share, share], 1)]


def _exam(groups=()):
    return make_exam(SAMPLE, INPUTS, teacher=Session(lambda price, _: price), schema=TABULAR, groups=groups, seed=1)


def _why(says, groups=()):
    session, exam = Session(says), _exam(groups)
    figures, why = examine(session, session.run(None, INPUTS)[0], exam, plan=PLAN)
    return figures, why


def test_the_teacher_itself_is_faithful():
    figures, why = _why(lambda price, _: price)
    assert why is None
    assert figures.agreement == figures.tail_agreement == figures.hidden_agreement == 1.0
    assert figures.group_drop == 0


def test_one_that_is_right_on_average_and_wrong_for_a_group_is_refused_by_the_groups_name():
    wrong_for_a_few = lambda price, channel: np.where((channel == "desk") & (price > 0.6) & (price < 0.9), 1 - price, price)  # noqa: E731
    figures, why = _why(wrong_for_a_few)
    assert figures.agreement > 0.88
    assert why.startswith("channel desk loses")
    assert figures.group == "channel desk"
    assert "desk" not in (_why(wrong_for_a_few, groups=("country",))[1] or ""), "only declared groups are held"


def test_a_loss_that_may_be_chance_is_no_reason():
    spoilt = set(np.flatnonzero((CHANNEL == "desk") & (PRICE > 0.6) & (LABELS == 1))[:3].tolist())
    session, exam = Session(lambda price, _: price), _exam()
    said = session.run(None, INPUTS)[0].copy()
    for row in spoilt:
        said[row] = said[row][::-1]
    figures, why = examine(session, said, exam, plan=CompressionPlan("binary", group_drop=0.001))
    assert figures.group_drop > 0.001
    assert why is None


def test_one_that_is_wrong_where_the_teacher_is_sure_is_refused():
    figures, why = _why(lambda price, channel: np.where((channel == "web") & (price > 0.97), 0.3, price), groups=("country",))
    assert figures.tail_agreement < 0.9
    assert "surest" in why


def test_one_that_says_too_much_is_refused_for_its_calibration():
    figures, why = _why(lambda price, _: np.where(price > 0.5, 0.999, 0.001))
    assert figures.calibration_error > figures.teacher_calibration_error + 0.05
    assert "calibration error" in why


def test_one_that_answers_otherwise_when_values_are_missing_or_unknown_is_refused():
    known = {"web", "desk"}

    def brittle(price, channel):
        lost = (price == 0.5) | np.array([value not in known for value in channel])
        return np.where(lost, 1 - price * 0.9, price)

    figures, why = _why(brittle)
    assert figures.hidden_agreement < 0.8
    assert "missing and unknown" in why


def test_one_whose_rows_lean_on_their_neighbours_is_refused_at_the_batch_size_where_they_do():
    def leaning(price, _):
        return price + (0.001 if len(price) == 64 else 0)

    figures, why = _why(leaning)
    assert figures.batch_difference == pytest.approx(0.001, rel=0.01)
    assert "a row alone and in a batch differ" in why
    session, exam = Session(leaning), _exam()
    assert examine(session, session.run(None, INPUTS)[0], exam, plan=CompressionPlan("binary", batch_sizes=(1, 7)))[1] is None


def test_what_is_no_number_is_refused():
    _, why = _why(lambda price, _: np.where(price > 0.99, np.nan, price))
    assert "not numbers" in why


@pytest.mark.parametrize("count", [5, 9, 40])
def test_the_range_of_a_median_holds_it_and_narrows_with_more_rounds(count):
    values = np.random.default_rng(1).normal(size=count).tolist()
    low, high = median_range(values)
    assert low <= np.median(values) <= high
    held = 0
    for seed in range(300):
        low, high = median_range(np.random.default_rng(seed).normal(size=count).tolist())
        held += low <= 0 <= high
    assert held / 300 > 0.88


def test_the_chance_of_a_loss_is_its_standard_error():
    exam = _exam()
    found = np.where(RNG.random(ROWS) < 0.1, 1 - exam.said[:, 1], exam.said[:, 1])
    found = np.stack([1 - found, found], 1)
    difference = (exam.said.argmax(1) == exam.labels).astype(float) - (found.argmax(1) == exam.labels)
    error = difference.std() / ROWS**0.5
    assert chance_of_loss(found, exam, kind="multiclass", cases=ROWS, seed=1) == pytest.approx(error, rel=0.35)
    assert chance_of_loss(exam.said, exam, kind="multiclass", cases=ROWS, seed=1) == 0.0


def test_copies_of_a_case_make_no_loss_surer():
    exam = _exam()
    found = np.where(RNG.random((ROWS, 1)) < 0.1, exam.said[:, ::-1], exam.said)
    fourfold = replace(exam, labels=np.tile(exam.labels, 4), said=np.tile(exam.said, (4, 1)))
    for kind in ("binary", "multiclass"):
        alone = chance_of_loss(found, exam, kind=kind, cases=ROWS, seed=1)
        assert chance_of_loss(np.tile(found, (4, 1)), fourfold, kind=kind, cases=ROWS, seed=1) == pytest.approx(alone)
