"""Reasons add up, an unused column gets nothing, exact and sampled ones agree, and their cost is bounded."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import RequestError
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.columns import Encoded
from platform_assets.stages.serving.reasons import MASKED_ROWS, as_reply, explain, name_columns


def schema_of(numbers, categories=0, texts=0):
    names = [*((f"n{at}", "numeric") for at in range(numbers)), *((f"c{at}", "category") for at in range(categories)),
             *((f"t{at}", "text") for at in range(texts))]  # fmt: skip
    return FeatureSchema(tuple(Feature(name, kind, "v", "id") for name, kind in names), "y", ("no", "yes"), "id", "at")


def rows(numbers, categories=(), texts=()):
    def strings(values):
        return np.array([list(values)], dtype=object) if values else None

    return Encoded(1, np.array([numbers], np.float32) if len(numbers) else None, strings(categories), None, strings(texts))


def model(seed, *, unused=()):
    """A function of all columns with interactions of every order; it counts the rows that it is asked about."""
    asked = []

    def predict(batch):
        asked.append(batch.rows)
        parts = [] if batch.numeric is None else [np.nan_to_num(batch.numeric.astype(np.float64), nan=-3.0)]
        parts += [np.vectorize(len, otypes=[float])(array) for array in (batch.categorical, batch.text) if array is not None]
        values = np.hstack(parts)
        values[:, list(unused)] = 0.0
        weights = np.random.default_rng(seed).normal(size=(2, values.shape[1]))
        score = np.tanh(values @ weights[0]) + np.prod(np.tanh(values[:, :3]) + 1.1, axis=1) + np.sin(values @ weights[1])
        yes = 1 / (1 + np.exp(-score))
        return np.column_stack([1 - yes, yes])

    predict.asked = asked
    return predict


def brute_force(predict, row, reference, schema, best):
    """By definition: the mean gain over all orders."""
    count = len(schema.features)
    found = np.zeros(count)
    for order in permutations(range(count)):
        mixed, before = reference.numeric.copy(), predict(reference)[0, best]
        for column in order:
            mixed[0, column] = row.numeric[0, column]
            after = predict(Encoded(1, mixed.copy(), None, None))[0, best]
            found[column] += after - before
            before = after
    return found / len(list(permutations(range(count))))


VALUES = st.lists(st.one_of(st.just(float("nan")), st.floats(-3, 3, width=32)), min_size=5, max_size=5)


@settings(max_examples=15, deadline=None)
@given(ours=VALUES, theirs=VALUES, seed=st.integers(0, 99))
def test_few_columns_get_what_the_definition_says(ours, theirs, seed):
    predict, schema = model(seed), schema_of(5)
    row, reference = rows(ours), rows(theirs)
    found = explain(predict, row, reference, schema=schema)
    best = int(predict(row)[0].argmax())
    np.testing.assert_allclose(found.contributions, brute_force(predict, row, reference, schema, best), atol=1e-9)
    assert (found.orders, found.errors.tolist()) == (0, [0.0] * 5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(2, 40), data=st.data())
def test_contributions_sum_to_the_difference_and_an_unused_column_gets_nothing(seed, count, data):
    unused = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    random = np.random.default_rng(seed)
    predict = model(seed, unused=unused)
    texts = min(2, count // 4)
    numbers = count - 2 * texts

    def some():
        words = ["a" * int(size) for size in random.integers(0, 5, 2 * texts)]
        return rows(random.normal(size=numbers), words[:texts], words[texts:])

    row, reference = some(), some()
    found = explain(predict, row, reference, schema=schema_of(numbers, texts, texts))
    assert abs(found.left_over) < 1e-9
    assert found.contributions.sum() == pytest.approx(found.answer - found.reference)
    assert np.abs(found.contributions[list(unused)]).max(initial=0.0) < 1e-12
    assert sum(predict.asked) <= MASKED_ROWS + 2


def test_a_column_with_the_value_of_the_reference_gets_nothing_and_equal_rows_have_no_reasons():
    row = rows(np.linspace(-1, 1, 15))
    same = rows([0.5, *np.linspace(-1, 1, 15)[1:]])
    found = explain(model(1), row, same, schema=schema_of(15))
    assert np.abs(found.contributions[1:]).max() < 1e-12
    assert found.contributions[0] == pytest.approx(found.answer - found.reference)
    assert explain(model(1), row, row, schema=schema_of(15)).contributions.tolist() == [0.0] * 15


def test_sampled_reasons_lie_within_their_errors_of_the_exact_ones():
    random = np.random.default_rng(5)
    row, reference, schema = rows(random.normal(size=9)), rows(random.normal(size=9)), schema_of(9)
    exact = explain(model(2), row, reference, schema=schema)
    sampled = explain(model(2), row, reference, schema=schema, budget=500)
    assert (exact.orders, sampled.orders) == (0, 62)
    far = np.abs(sampled.contributions - exact.contributions) / np.maximum(sampled.errors, 1e-9)
    assert np.median(far) < 2
    assert np.abs(sampled.contributions - exact.contributions).max() < 0.05


def test_a_reply_names_columns_and_values_the_largest_first():
    row, reference = rows([3.0, 0.1], ["abc"]), rows([0.0, 0.0], [""])
    found = explain(model(3), row, reference, schema=schema_of(2, 1))
    reply = as_reply(found, label="yes", given={"n0": 3.0, "n1": 0.1, "c0": "abc"}, typical={"n0": 0.0, "n1": 0.0})
    sizes = [abs(one["contribution"]) for one in reply["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {one["column"]: (one["value"], one["reference"]) for one in reply["contributions"]} == {
        "n0": (3.0, 0.0), "n1": (0.1, 0.0), "c0": ("abc", None),
    }  # fmt: skip
    assert (reply["method"], reply["left_over"]) == ("exact Shapley values", 0.0)
    assert sum(one["contribution"] for one in reply["contributions"]) == pytest.approx(
        reply["probability"] - reply["reference_probability"], abs=1e-5
    )


def test_an_image_is_refused_in_a_sentence():
    schema = FeatureSchema((Feature("scan", "image", "v", "id", size=4),), "y", ("no", "yes"), "id", "at")
    with pytest.raises(RequestError, match="column 'scan' is an image, which has no columns to name; ask without reasons"):
        name_columns(schema)
