"""Whose rows are whose: every row of a person is meant, no other one, and a forgotten person's rows do not come back."""

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.dataset import Column, Pseudonymise
from platform_assets.specs.subjects import Marks
from platform_assets.stages.governance.erasure import mark_of, matching, pseudonym_of, without_subjects
from platform_assets.stages.governance.protection import protect

KEY = b"k" * 32
NAMES = st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=5)), max_size=20)


@given(NAMES, st.text(min_size=1, max_size=5))
def test_exactly_the_rows_of_a_person_are_meant(names, person):
    rows = pa.table({"who": pa.array(names, pa.string())})
    assert matching(rows, Marks({"who": (person,)})).to_pylist() == [name == person for name in names]


@given(NAMES, st.sets(st.text(min_size=1, max_size=5)))
def test_rows_of_those_who_are_not_forgotten_stay_in_order(names, forgotten):
    rows = pa.table({"who": pa.array(names, pa.string()), "n": list(range(len(names)))})
    kept = without_subjects(rows, column="who", marks={mark_of(name, key=KEY) for name in forgotten}, key=KEY)
    assert kept["n"].to_pylist() == [n for n, name in enumerate(names) if name not in forgotten]


@given(st.text(min_size=1, max_size=20))
def test_a_pseudonym_is_what_protect_made_and_the_mark_is_neither_it_nor_the_value(person):
    columns = {"who": Column(type="string", personal=Pseudonymise(method="pseudonymise"))}
    protected = protect(pa.table({"who": [person]}), columns=columns, key=KEY)["who"][0].as_py()
    assert protected == pseudonym_of(person, key=KEY)
    assert len({person, protected, mark_of(person, key=KEY), mark_of(person, key=b"x" * 32)}) == 4


def test_a_text_inside_of_json_is_found_as_a_whole_value_only():
    rows = pa.table({"inputs": ['{"who":"ann","n":1}', '{"who":"anna"}', None]})
    assert matching(rows, Marks(inside={"inputs": ("ann",)})).to_pylist() == [True, False, False]


def test_numbers_are_compared_as_text_and_a_missing_column_names_nobody():
    rows = pa.table({"who": [12, 2]})
    assert matching(rows, Marks({"who": ("12",), "gone": ("2",)})).to_pylist() == [True, False]
    assert not pc.any(matching(rows, Marks())).as_py()
