"""A release is measured group by group; groups too small to say anything are left out."""

import numpy as np
import pyarrow as pa

from platform_assets.measures import accuracy
from platform_assets.stages.release.groups import FEWEST_ROWS, measure_groups


def test_groups_partition_the_rows_and_agree_with_the_whole():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 400)
    share = generator.random(400)
    probabilities = np.stack([1 - share, share], axis=1)
    rows = pa.table({"c": ["x"] * 150 + ["y"] * 249 + [None]})
    found = measure_groups(rows, labels=labels, probabilities=probabilities, columns=["c"], kind="binary", leading="auroc")
    assert [(row["value"], row["rows"]) for row in found] == [("y", 249), ("x", 150)]  # one missing value is fewer than FEWEST_ROWS
    assert FEWEST_ROWS > 1
    whole = accuracy(labels[:399], probabilities=probabilities[:399])
    assert np.isclose(sum(row["accuracy"] * row["rows"] for row in found) / 399, whole)
    assert all(0 <= row["positive"] <= 1 and row["leading"] is not None for row in found)


def test_a_metric_that_is_undefined_in_a_group_is_none():
    rows = pa.table({"c": ["x"] * 40})
    probabilities = np.tile([0.2, 0.8], (40, 1))
    (row,) = measure_groups(rows, labels=np.ones(40, int), probabilities=probabilities, columns=["c"], kind="binary", leading="auroc")
    assert (row["leading"], row["accuracy"]) == (None, 1.0)
