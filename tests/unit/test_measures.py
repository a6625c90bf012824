"""Our metrics are the field's: held against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from platform_assets import measures
from platform_assets.specs import model

CASES = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda rows: len({row[0] for row in rows}) == 2
)


@given(rows=CASES)
def test_auroc_counts_ties_half(rows):
    positive, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows]) / 8
    assert measures.auroc(positive, scores=scores) == pytest.approx(metrics.roc_auc_score(positive, scores))


@given(seed=st.integers(0, 1000), classes=st.integers(2, 5))
def test_accuracy_and_log_loss_agree_with_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, classes, 40), rng.dirichlet(np.ones(classes), 40)
    found = measures.measure(labels, probabilities=probabilities, kind="multiclass")
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, probabilities.argmax(1)))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities, labels=range(classes)))


def test_auroc_of_one_class_alone_is_left_out():
    assert "auroc" not in measures.measure(np.zeros(3, int), probabilities=np.full((3, 2), 0.5), kind="binary")


def test_the_declarations_know_the_same_metrics():
    assert model.METRICS == measures.METRICS
    assert model.HIGHER_IS_BETTER == measures.HIGHER_IS_BETTER
