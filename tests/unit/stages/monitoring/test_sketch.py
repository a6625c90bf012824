import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.specs.record_json import read_record, to_json
from platform_assets.stages.monitoring.frequencies import COUNTERS, sketch_words
from platform_assets.stages.monitoring.quantiles import CAPACITY, merge_all, sketch_values
from platform_assets.stages.monitoring.signals import Signal
from platform_assets.stages.monitoring.sketch import POINTS, SAMPLE, Summary, merge_sketches, sketch_signals, summarise

seeds = st.integers(0, 10_000)
sizes = st.lists(st.integers(0, 3 * CAPACITY), min_size=1, max_size=6)


def numbers(seed, size):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(size) < 0.3, rng.integers(-3, 3, size), rng.lognormal(0, 2, size))


def worst_rank_error(sketch, values):
    """Largest distance between a value's place in the sketch and the places that it has among all values."""
    points = sketch.points(sketch.rows)
    ranks = np.round(np.linspace(0, sketch.rows - 1, len(points)))
    ordered = np.sort(values)
    first, last = (np.searchsorted(ordered, points, side=side) for side in ("left", "right"))
    return float(np.maximum(np.maximum(first - ranks, ranks - (last - 1)), 0).max(initial=0))


@settings(max_examples=25, deadline=None)
@given(seeds, sizes)
def test_no_rank_is_off_by_more_than_the_slack_and_no_row_is_lost(seed, parts):
    chunks = [numbers(seed + place, size) for place, size in enumerate(parts)]
    merged, values = merge_all([sketch_values(chunk) for chunk in chunks]), np.concatenate(chunks)
    assert merged.rows == len(values) == sum(len(level) * 2**height for height, level in enumerate(merged.levels))
    assert all(len(level) <= CAPACITY for level in merged.levels)
    weights = np.concatenate([np.full(len(level), 2**height) for height, level in enumerate(merged.levels)])
    kept = np.concatenate(merged.levels)
    for place in np.quantile(values, np.linspace(0, 1, 21)) if len(values) else ():
        assert abs(weights[kept <= place].sum() - (values <= place).sum()) <= merged.slack
    assert merged.slack <= (np.log2(max(len(values), CAPACITY) / CAPACITY) + 2) / CAPACITY * max(len(values), 1) + 1


@settings(max_examples=25, deadline=None)
@given(seeds, sizes, st.randoms(use_true_random=False))
def test_the_order_of_merging_changes_ranks_by_no_more_than_the_slack(seed, parts, chance):
    chunks = [numbers(seed + place, size) for place, size in enumerate(parts)]
    sketches = [sketch_values(chunk) for chunk in chunks]
    values = np.concatenate(chunks)
    left = merge_all(sketches)
    chance.shuffle(sketches)
    right = sketches[-1] if len(sketches) == 1 else sketches[0].merge(merge_all(sketches[1:]))
    for place in np.quantile(values, np.linspace(0, 1, 11)) if len(values) else ():
        found = [sum(2**height * int((level <= place).sum()) for height, level in enumerate(sketch.levels)) for sketch in (left, right)]
        assert abs(found[0] - found[1]) <= left.slack + right.slack


def test_two_sketches_merge_to_the_same_either_way():
    one, other = sketch_values(numbers(1, 20_000)), sketch_values(numbers(2, 9_000))
    there, back = one.merge(other), other.merge(one)
    assert all(np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(there.levels, back.levels, strict=True))


def test_a_sketch_of_few_values_holds_them_all():
    values = numbers(3, CAPACITY)
    sketch = sketch_values(values)
    assert (sketch.slack, np.array_equal(sketch.points(CAPACITY), np.sort(values))) == (0, True)
    assert len(sketch.points(POINTS)) == POINTS
    assert len(merge_all([]).points(POINTS)) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(seeds, st.integers(0, 6000), st.floats(1.05, 3)), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_counts_of_words_are_low_by_no_more_than_what_is_told_in_any_order_of_merging(parts, chance):
    chunks = [np.random.default_rng(seed).zipf(shape, size) % 10_000 for seed, size, shape in parts]
    chance.shuffle(chunks)
    sketches = [sketch_words(pa.array(chunk.astype(str), pa.string())) for chunk in chunks]
    merged = sketches[0]
    for sketch in sketches[1:]:
        merged = merged.merge(sketch)
    names, counts = np.unique(np.concatenate(chunks).astype(str), return_counts=True)
    assert len(merged.counts) <= COUNTERS
    assert merged.lost <= merged.rows / COUNTERS
    for name, count in zip(names, counts, strict=True):
        assert 0 <= count - merged.counts.get(name, 0) <= merged.lost


def table_of(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.normal(5, 2, size)
    values[rng.random(size) < 0.2] = np.nan
    words = pa.array(np.where(rng.random(size) < 0.1, None, rng.choice(["a", "b", "c"], size)), pa.string())
    return values, words


def sketch_of(values, words, seed):
    return sketch_signals([Signal("x", "x", "number", values, len(values)), Signal("w", "w", "category", words, len(words))], seed=seed)


@settings(max_examples=25, deadline=None)
@given(seeds, st.lists(st.integers(1, 3000), min_size=2, max_size=5))
def test_merged_batches_tell_what_one_pass_over_all_rows_tells(seed, parts):
    tables = [table_of(seed + place, size) for place, size in enumerate(parts)]
    merged = summarise(merge_sketches(sketch_of(*table, seed=place) for place, table in enumerate(tables)))
    whole = summarise(sketch_of(np.concatenate([x for x, _ in tables]), pa.chunked_array([w for _, w in tables]), seed=0))
    for name, exact in (("x", ("rows", "missing", "low", "high")), ("w", ("rows", "missing", "counts", "lost"))):
        assert [getattr(merged[name], field) for field in exact] == [getattr(whole[name], field) for field in exact]
    assert merged["x"].mean == pytest.approx(whole["x"].mean)
    assert merged["x"].deviation == pytest.approx(whole["x"].deviation, rel=1e-5)


def test_a_sample_of_merged_rows_is_of_its_size_keeps_rows_together_and_is_the_same_in_any_order():
    batches = [table_of(seed, 3000) for seed in range(4)]
    for values, words in batches:
        values[:] = np.where(np.array(words.fill_null("").to_pylist()) == "a", 1.0, 0.0)
    sketches = [sketch_of(*batch, seed=place) for place, batch in enumerate(batches)]
    there, back = merge_sketches(sketches).sample, merge_sketches(reversed(sketches)).sample
    assert len(there.priorities) == SAMPLE
    assert np.array_equal(there.values["x"] == 1.0, there.values["w"] == "a")
    assert np.array_equal(there.priorities, back.priorities)
    assert np.array_equal(there.values["x"], back.values["x"])


def test_a_column_without_any_value_and_numbers_at_the_ends_of_what_a_float_holds_are_summarised():
    rows = 100
    odd = np.resize([1e149, -1e149, 5e-324, 0.0, np.inf, 1e308, np.nan], rows)
    sketch = sketch_signals(
        [
            Signal("none", "none", "number", np.full(rows, np.nan), rows),
            Signal("words", "words", "category", pa.nulls(rows, pa.string()), rows),
            Signal("odd", "odd", "number", odd, rows),
        ],
        seed=1,
    )
    found = summarise(sketch)
    assert (found["none"].missing, found["none"].points) == (rows, ())
    assert (found["words"].missing, found["words"].counts) == (rows, {})
    assert (found["odd"].low, found["odd"].high) == (-1e149, 1e149)
    assert found["odd"].missing == np.isin(np.arange(rows) % 7, [4, 5, 6]).sum()
    for summary in found.values():
        assert read_record(Summary, to_json(summary)) == summary
        json.loads(to_json(summary))
