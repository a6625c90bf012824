"""k-anonymity and l-diversity by their definitions, over whatever rows."""

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.dataset import Column, DatasetSpec, Label
from platform_assets.stages.governance.anonymity import SMALL, measure_anonymity


def dataset(**columns):
    times = {"at": Column(type="timestamp"), "known": Column(type="timestamp"), "y": Column(type="integer", nullable=True)}
    return DatasetSpec(
        name="d", owner="team:t", source={"kind": "provided"}, key="a", event_time="at", label=Label(column="y", known_at="known"),
        columns={**times, **columns},
    )  # fmt: skip


QUASI = dataset(a=Column(type="string", nullable=True, quasi=True), b=Column(type="integer", quasi=True))


@given(st.lists(st.tuples(st.sampled_from(["x", "y", None]), st.integers(0, 2), st.sampled_from([0, 1, None])), min_size=1, max_size=40))
def test_the_figures_are_those_of_the_definition(rows):
    table = pa.table(
        {"a": pa.array([r[0] for r in rows], pa.string()), "b": [r[1] for r in rows], "y": pa.array([r[2] for r in rows], pa.int64())}
    )
    found = measure_anonymity(table, dataset=QUASI)
    sizes = Counter(row[:2] for row in rows)
    labels = {kind: {row[2] for row in rows if row[:2] == kind} - {None} for kind in sizes}
    assert (found.k, found.classes, found.rows) == (min(sizes.values()), len(sizes), len(rows))
    assert found.l == min(map(len, labels.values()))
    assert found.few == sum(size for size in sizes.values() if size < SMALL)
    assert f"k-anonymity {found.k}, l-diversity {found.l} of y over a, b" in found.as_record()["sentence"]


def test_nothing_is_measured_where_no_column_is_declared_or_left():
    assert measure_anonymity(pa.table({"a": ["x"]}), dataset=dataset(a=Column(type="string"))) is None
    assert measure_anonymity(pa.table({"y": [1]}), dataset=QUASI) is None
