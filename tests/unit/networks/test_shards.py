"""The files of a training set: bounded, listed, the same bytes for the same rows."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import DataError
from platform_assets.networks.rows import read_rows
from platform_assets.networks.shards import read_shard_list, write_training_set
from tests.unit.networks.tiny import TABULAR, tabular, write_set


def written(folder, cuts, *, shard_rows, rows=60):
    table = tabular(rows)
    places = sorted({0, rows, *(cut % rows for cut in cuts)})
    stream = (table[begin:end] for begin, end in pairwise(places))
    parts = {"train": stream, "calibration": [tabular(5)], "holdout": [tabular(5)[:0]]}
    write_training_set(folder, parts, schema=TABULAR, shard_rows=shard_rows)
    return folder


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), max_size=6), shard_rows=st.integers(1, 61))
def test_shards_are_full_but_the_last_and_equal_however_the_stream_is_cut(tmp_path_factory, cuts, shard_rows):
    folder, other = (written(tmp_path_factory.mktemp("set"), c, shard_rows=shard_rows) for c in (cuts, ()))
    listed = read_shard_list(folder)
    assert listed == read_shard_list(other)
    shards = listed.of("train")
    assert [shard.rows for shard in shards[:-1]] == [shard_rows] * (len(shards) - 1)
    assert sum(shard.rows for shard in shards) == 60
    assert all(hashlib.sha256((folder / shard.path).read_bytes()).hexdigest() == shard.sha256 for shard in shards)
    assert pq.read_table(folder / "train").equals(pq.read_table(other / "train"))
    assert pq.read_table(folder / "train")["price"].to_pylist() == tabular(60)["price"].to_pylist()


def test_a_split_without_rows_is_an_empty_file_and_cannot_be_trained_on(tmp_path):
    written(tmp_path, (), shard_rows=20)
    assert pq.read_table(tmp_path / "holdout").num_rows == 0
    with pytest.raises(DataError, match="no holdout rows"):
        read_rows(tmp_path, "holdout", schema=TABULAR)


def test_a_shard_cut_short_or_exchanged_or_lacking_a_column_is_named(tmp_path):
    write_set(tmp_path, tabular(), TABULAR)
    path = tmp_path / "train" / "00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"00001\.parquet is listed .* cannot be read"):
        read_rows(tmp_path, "train", schema=TABULAR)
    pq.write_table(tabular(3), path)
    with pytest.raises(DataError, match=r"holds 3 rows, shards\.json says 50"):
        read_rows(tmp_path, "train", schema=TABULAR)
    pq.write_table(pa.table({"label": ["0"] * 50}), path)
    with pytest.raises(DataError, match=r"lacks the columns \['channel'"):
        read_rows(tmp_path, "train", schema=TABULAR)


def test_a_folder_that_is_no_training_set_says_so(tmp_path):
    with pytest.raises(DataError, match=r"needs shards\.json"):
        read_shard_list(tmp_path)
