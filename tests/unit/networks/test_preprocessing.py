"""Fitted on the training rows alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.errors import DataError
from platform_assets.networks.preprocessing import MISSING, UNKNOWN, Preprocessing, category_ids, fit_preprocessing
from platform_assets.networks.rows import read_rows
from platform_assets.specs.record_json import read_record, to_json
from tests.unit.networks.tiny import TABULAR, tabular, write_set


def test_what_stands_in_calibration_and_holdout_changes_nothing(tmp_path):
    first = write_set(tmp_path / "a", tabular(), TABULAR)
    second = write_set(tmp_path / "b", pa.concat_tables([tabular()[:144], tabular(96, seed=9)]), TABULAR)
    fitted = [fit_preprocessing(folder, schema=TABULAR) for folder in (first, second)]
    assert fitted[0] == fitted[1]
    assert read_record(Preprocessing, to_json(fitted[0])) == fitted[0]


def test_missing_and_unknown_values_have_rows_of_their_own(tmp_path):
    fitted = fit_preprocessing(write_set(tmp_path, tabular(), TABULAR), schema=TABULAR)
    ids = category_ids([pa.array(["", "new", "web"]), pa.array(["", "new", "AE"])], preprocessing=fitted)
    assert (ids[0] == np.array(fitted.offsets) + MISSING).all()
    assert (ids[1] == np.array(fitted.offsets) + UNKNOWN).all()
    assert (ids[2] > np.array(fitted.offsets) + UNKNOWN).all()


def test_a_class_the_schema_does_not_know_is_named(tmp_path):
    table = tabular().set_column(5, "label", pa.array(["perhaps"] * 240))
    with pytest.raises(DataError, match="perhaps"):
        read_rows(write_set(tmp_path, table, TABULAR), "train", schema=TABULAR)


def test_a_column_without_any_value_is_no_obstacle(tmp_path):
    table = tabular().set_column(1, "price", pa.nulls(240, pa.float64()))
    fitted = fit_preprocessing(write_set(tmp_path, table, TABULAR), schema=TABULAR)
    assert np.isfinite(fitted.numbers[0].median)


def test_the_length_of_the_shards_and_the_order_of_the_rows_change_nothing(tmp_path):
    table = tabular(300, seed=4)
    order = np.random.default_rng(1).permutation(300)
    folders = [
        write_set(tmp_path / str(length), rows, TABULAR, train=1.0, shard_rows=length)
        for length, rows in ((300, table), (7, table), (64, table.take(pa.array(order))))
    ]
    fitted = [fit_preprocessing(folder, schema=TABULAR) for folder in folders]
    assert fitted[0] == fitted[1] == fitted[2]
    price = np.array(table["price"].to_pylist(), float)
    assert fitted[0].numbers[0].edges[0] == pytest.approx(np.nanmin(price))
    assert fitted[0].numbers[0].median == pytest.approx(np.nanmedian(price))
    assert fitted[0].numbers[0].scale == pytest.approx(np.nanstd(price), rel=1e-5)


def test_beyond_the_limit_of_exact_rows_a_seeded_sample_stands_for_all(tmp_path):
    table = tabular(20_000, seed=4)
    coarse, fine = (write_set(tmp_path / str(length), table, TABULAR, train=1.0, shard_rows=length) for length in (20_000, 999))
    exact, sampled, again = (
        fit_preprocessing(folder, schema=TABULAR, exact_rows=limit) for folder, limit in ((coarse, 20_000), (coarse, 4_000), (fine, 4_000))
    )
    assert sampled == again
    assert sampled.categories == exact.categories
    for one, other in zip(sampled.numbers, exact.numbers, strict=True):
        assert (one.edges[0], one.edges[-1]) == (other.edges[0], other.edges[-1])
        assert one.mean == pytest.approx(other.mean, abs=0.08 * other.scale)
    price, its = sampled.numbers[0], exact.numbers[0]
    assert price.median == pytest.approx(its.median, abs=0.08 * its.scale)
    assert sampled.numbers[0] != exact.numbers[0]
