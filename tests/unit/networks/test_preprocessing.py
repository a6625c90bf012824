"""Fitted on the training rows alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from platform_assets.errors import DataError
from platform_assets.networks.preprocessing import MISSING, UNKNOWN, Preprocessing, category_ids, fit_preprocessing
from platform_assets.networks.rows import read_rows
from platform_assets.specs.records import read_record, to_json
from tests.unit.networks.tiny import TABULAR, tabular, write_set


def test_what_stands_in_calibration_and_holdout_changes_nothing(tmp_path):
    first = write_set(tmp_path / "a", tabular(), TABULAR)
    second = write_set(tmp_path / "b", pa.concat_tables([tabular()[:144], tabular(96, seed=9)]), TABULAR)
    fitted = [fit_preprocessing(read_rows(folder, "train", schema=TABULAR), schema=TABULAR) for folder in (first, second)]
    assert fitted[0] == fitted[1]
    assert read_record(Preprocessing, to_json(fitted[0])) == fitted[0]


def test_missing_and_unknown_values_have_rows_of_their_own(tmp_path):
    rows = read_rows(write_set(tmp_path, tabular(), TABULAR), "train", schema=TABULAR)
    fitted = fit_preprocessing(rows, schema=TABULAR)
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
    fitted = fit_preprocessing(read_rows(write_set(tmp_path, table, TABULAR), "train", schema=TABULAR), schema=TABULAR)
    assert np.isfinite(fitted.numbers[0].median)
