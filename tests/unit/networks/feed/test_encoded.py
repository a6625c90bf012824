"""Encoded rows equal those read whole, shards in the cache are not read, and other preprocessing is another entry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import DataError
from platform_assets.networks.feed.cache import ShardCache
from platform_assets.networks.feed.encoded import encode_splits, fit_once
from platform_assets.networks.feed.layout import Field, Layout, smallest_integer
from platform_assets.networks.preprocessing import category_ids
from platform_assets.networks.rows import read_rows
from platform_assets.networks.tokens import encode_texts
from tests.unit.networks.tiny import PICTURES, REVIEWS, TABULAR, pictures, reviews, tabular, write_set

WIDTHS = st.integers(0, 3)


@given(
    rows=st.integers(1, 9), widths=st.tuples(WIDTHS, WIDTHS, WIDTHS), high=st.sampled_from([2, 256, 257, 70_000]), seed=st.integers(0, 99)
)
def test_a_row_unpacked_is_the_row_packed(rows, widths, high, seed):
    rng = np.random.default_rng(seed)
    kind = smallest_integer(high)
    layout = Layout((Field("float32", widths[0]), Field(kind, widths[1]), Field("float32", widths[2]), Field("uint8", 1)))
    arrays = (
        rng.normal(size=(rows, widths[0])).astype(np.float32), rng.integers(0, high, (rows, widths[1])),
        rng.normal(size=(rows, widths[2])).astype(np.float32), rng.integers(0, 2, rows),
    )  # fmt: skip
    back = layout.unpack(torch.from_numpy(layout.pack(arrays)))
    for array, tensor in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())
        assert tensor.is_contiguous()


def test_the_smallest_integer_holds_its_values_and_no_smaller_does():
    assert [smallest_integer(count) for count in (0, 1, 256, 257, 32_768, 32_769)] == ["uint8", "uint8", "uint8", "int16", "int16", "int32"]


@pytest.mark.parametrize(
    ("table", "schema"), [(tabular(), TABULAR), (pictures(), PICTURES), (reviews(), REVIEWS)], ids=["tabular", "pictures", "text"]
)
def test_encoded_splits_are_the_rows_read_whole(tmp_path, table, schema):
    data = write_set(tmp_path / "data", table, schema, shard_rows=17)
    cache = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    preprocessing = fit_once(data, schema=schema, cache=cache)
    for split, encoded in encode_splits(data, schema=schema, preprocessing=preprocessing, cache=cache).items():
        rows = read_rows(data, split, schema=schema)
        numeric, ids, image, *tokens, target = (torch.cat(parts) for parts in zip(*encoded.chunks(5), strict=True))
        np.testing.assert_array_equal(numeric.numpy(), rows.numeric)
        np.testing.assert_array_equal(image.numpy(), rows.image)
        np.testing.assert_array_equal(target.numpy(), rows.labels)
        if rows.categorical:
            np.testing.assert_array_equal(ids.numpy(), category_ids(rows.categorical, preprocessing=preprocessing))
        if rows.text:
            assert preprocessing.tokeniser is not None
            np.testing.assert_array_equal(tokens[0].numpy(), encode_texts(rows.text, tokeniser=preprocessing.tokeniser))
        assert len(tokens) == (1 if rows.text else 0)
        assert encoded.rows == len(rows)


def test_a_second_start_reads_no_shard(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    first = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    fitted = fit_once(data, schema=TABULAR, cache=first)
    before = encode_splits(data, schema=TABULAR, preprocessing=fitted, cache=first)
    for path in data.rglob("*.parquet"):
        path.unlink()
    second = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    assert fit_once(data, schema=TABULAR, cache=second) == fitted
    after = encode_splits(data, schema=TABULAR, preprocessing=fitted, cache=second, rank=1, world=2)
    assert all(torch.equal(one, other) for name in before for one, other in zip(before[name].parts, after[name].parts, strict=True))
    assert second.figures()["cache_hit_share"] == 1.0
    assert first.figures()["cache_hit_share"] == 0.0


def test_other_preprocessing_or_another_schema_is_another_entry(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    cache = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    fitted = fit_once(data, schema=TABULAR, cache=cache)
    encode_splits(data, schema=TABULAR, preprocessing=fitted, cache=cache)
    made = cache.misses
    channel = fitted.categories[0]
    turned = dataclasses.replace(fitted, categories=(dataclasses.replace(channel, values=channel.values[::-1]), *fitted.categories[1:]))
    again = encode_splits(data, schema=TABULAR, preprocessing=turned, cache=cache)["train"]
    assert cache.misses == 2 * made - 1
    other = dataclasses.replace(TABULAR, classes=("1", "0"))
    labels = encode_splits(data, schema=other, preprocessing=turned, cache=cache)["train"].labels()
    np.testing.assert_array_equal(labels, 1 - again.labels())


def test_a_vocabulary_of_another_size_is_fitted_anew(tmp_path):
    data = write_set(tmp_path / "data", reviews(), REVIEWS)
    cache = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    small, large, again = (fit_once(data, schema=REVIEWS, cache=cache, vocabulary=size).tokeniser for size in (30, 60, 30))
    assert small == again
    assert small.size < large.size
    assert (cache.hits, cache.misses) == (1, 2)


def test_a_set_that_the_cache_cannot_hold_is_refused(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    cache = ShardCache(tmp_path / "cache", limit_bytes=100)
    with pytest.raises(DataError, match=r"takes 4,800 bytes and the shard cache may hold 100; raise storage\.cache"):
        encode_splits(data, schema=TABULAR, preprocessing=fit_once(data, schema=TABULAR, cache=cache), cache=cache)


def test_an_entry_somebody_cut_is_named(tmp_path):
    data = write_set(tmp_path / "data", tabular(), TABULAR)
    cache = ShardCache(tmp_path / "cache", limit_bytes=10**9)
    fitted = fit_once(data, schema=TABULAR, cache=cache)
    encode_splits(data, schema=TABULAR, preprocessing=fitted, cache=cache)
    entry = next(path for path in (tmp_path / "cache").iterdir() if path.stat().st_size == 50 * 20)
    entry.write_bytes(b"cut")
    with pytest.raises(DataError, match="holds 3 bytes where 1000 are right; delete it"):
        encode_splits(data, schema=TABULAR, preprocessing=fitted, cache=cache)
