from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.datasets.fingerprints import content_hash, content_keys, row_hashes, row_texts

ROWS = st.lists(st.tuples(st.text(max_size=3) | st.none(), st.integers(0, 2) | st.none(), st.integers(0, 1) | st.none()), max_size=12)


def table(rows):
    a, b, label = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table({"a": pa.array(a, pa.string()), "b": pa.array(b, pa.int64()), "label": pa.array(label, pa.int64())})


@given(ROWS)
def test_rows_have_equal_texts_only_when_they_are_equal(rows):
    texts = row_texts(table(rows)).to_pylist()
    assert [[one == other for other in rows] for one in rows] == [[one == other for other in texts] for one in texts]


@given(ROWS, st.randoms(use_true_random=False))
def test_made_keys_name_every_row_once_and_do_not_depend_on_the_order(rows, lottery):
    keys = content_keys(table(rows), tie_break="label").to_pylist()
    assert len(set(keys)) == len(rows)
    shuffled = list(rows)
    lottery.shuffle(shuffled)
    again = content_keys(table(shuffled), tie_break="label").to_pylist()
    assert sorted(zip(keys, map(str, rows), strict=True)) == sorted(zip(again, map(str, shuffled), strict=True))


@given(ROWS)
def test_made_keys_stay_when_labels_are_filled_in_later(rows):
    without = table([(a, b, None) for a, b, _ in rows])
    assert set(content_keys(without, tie_break="label").to_pylist()) == set(content_keys(table(rows), tie_break="label").to_pylist())


@given(ROWS, st.randoms(use_true_random=False))
def test_the_content_hash_sees_every_row_and_no_order(rows, lottery):
    shuffled = list(rows)
    lottery.shuffle(shuffled)
    assert content_hash(row_hashes(table(rows))) == content_hash(row_hashes(table(shuffled)))
    more = [*rows, ("x", 1, 1)]
    assert content_hash(row_hashes(table(rows))) != content_hash(row_hashes(table(more)))


def test_column_names_belong_to_a_row_s_hash_and_their_order_does_not():
    one = pa.table({"a": [1], "b": [2]})
    assert row_hashes(one) == row_hashes(one.select(["b", "a"]))
    assert row_hashes(one) != row_hashes(one.rename_columns(["a", "c"]))
    assert row_hashes(one) != row_hashes(pa.table({"a": [2], "b": [1]}))


def test_dictionary_columns_and_pictures_are_hashed_by_value():
    plain = pa.table({"a": ["x", None], "p": [[0.5, 1.0], [0.0, 2.0]]})
    coded = plain.set_column(0, "a", plain["a"].dictionary_encode())
    assert row_hashes(plain) == row_hashes(coded)
    assert row_hashes(plain) != row_hashes(pa.table({"a": ["x", None], "p": [[0.5, 1.0], [0.0, 2.5]]}))
