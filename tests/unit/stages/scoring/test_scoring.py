"""A graph cut behind its look-up answers as the whole one does, for any values, and batches come in order with few under way."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from platform_assets.errors import DataError, ReleaseError
from platform_assets.main_job.bench.batch_scoring import make_mixed
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.scoring.arrow import as_arrow, as_numpy, as_texts
from platform_assets.stages.scoring.inputs import ColumnReader
from platform_assets.stages.scoring.look_up import cut_look_up
from platform_assets.stages.scoring.scorer import Scorer
from resources.testing.keys import open_releases
from resources.testing.released import write_released_home
from resources.testing.serving import TINY_SCHEMA, _tiny_graph

MIXED = FeatureSchema(
    (Feature("price", "numeric", "v", "id"), Feature("day", "date", "v", "id"), Feature("colour", "category", "v", "id")),
    "y", ("0", "1"), "id", "at",
)  # fmt: skip


class Network:
    """Of a short name: hypothesis prints what it was given."""

    def __init__(self):
        self.schema, self.graph = make_mixed()
        self.whole = ort.InferenceSession(self.graph, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def network():
    return Network()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory, network):
    return scorer_of(tmp_path_factory.mktemp("scorer"), network.schema, network.graph)


def scorer_of(folder, schema, graph, *, threads=2):
    store = open_releases(write_released_home(folder, schema=schema, graph=graph).home)
    (digest,) = store.digests()
    return Scorer(store.open(digest), threads=threads)


def batch(schema, texts, numbers):
    rows = len(texts)
    columns = {}
    for place, feature in enumerate(schema.features):
        if feature.kind == "category":
            columns[feature.name] = pa.array([texts[(at + place) % rows] for at in range(rows)], pa.string())
        else:
            columns[feature.name] = pa.array([numbers[(at * 7 + place) % len(numbers)] for at in range(rows)], pa.float64())
    return pa.RecordBatch.from_pydict(columns)


TEXTS = st.lists(
    st.one_of(st.none(), st.sampled_from(["value 1", "value 37", "value 39", "", "0=value 1", "ü"]), st.text(max_size=5)),
    min_size=1,
    max_size=40,
)
NUMBERS = st.lists(st.one_of(st.none(), st.just(float("nan")), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=9)


@settings(max_examples=25, deadline=None)
@given(texts=TEXTS, numbers=NUMBERS)
def test_a_cut_graph_answers_as_the_whole_one_bit_for_bit(scorer, network, texts, numbers):
    schema, whole = network.schema, network.whole
    asked = batch(schema, texts, numbers)
    arrays = {
        "numeric": np.column_stack([np.array(asked[f.name].to_pylist(), np.float64) for f in schema.of_kind("numeric")]).astype(np.float32),
        "categorical": np.column_stack(
            [np.array([text or "" for text in asked[f.name].to_pylist()], object) for f in schema.of_kind("category")]
        ),
    }
    assert scorer._cut is not None
    np.testing.assert_array_equal(scorer.score(asked), whole.run(None, arrays)[0])


def test_the_shipped_networks_and_a_bare_encoder_are_cut_and_others_stay_whole(network):
    cut = cut_look_up(network.graph)
    assert "categorical" not in {entry.name for entry in onnx.load_model_from_string(cut.rest).graph.input}
    assert cut_look_up(_tiny_graph(seed=1, breaks_at=None)) is not None
    joined = helper.make_graph(
        [helper.make_node("StringConcat", ["categorical", "categorical"], ["twice"]), helper.make_node("Identity", ["twice"], ["probabilities"])],
        "odd", [helper.make_tensor_value_info("categorical", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.STRING, ["n", 1])],
    )  # fmt: skip
    assert cut_look_up(helper.make_model(joined, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()) is None


def test_columns_are_read_alike_however_arrow_keeps_them():
    look_up = {"red": 5, "": 0, "blue": 7}
    calls = []

    def read(column_of_colours, days):
        def numbers(columns):
            calls.append(columns)
            return np.array([[look_up.get(value, 1)] for value in columns[0]], np.int64)

        reader = ColumnReader(MIXED, look_up=numbers, tensor="codes")
        rows = pa.RecordBatch.from_arrays([pa.array([1, None, 3]), days, column_of_colours], names=["price", "day", "colour"])
        blocks = [{name: array.copy() for name, array in block.items()} for block in reader.read(rows, most=2)]
        assert [len(block["numeric"]) for block in blocks] == [2, 1]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    times = pa.array([datetime(1970, 1, 2), None, datetime(1970, 1, 3, 12)], pa.timestamp("us"))
    texts = pa.array(["red", None, "never"])
    for colours in (texts, texts.dictionary_encode(), pa.array(["x", "red", None, "never"]).dictionary_encode().slice(1)):
        for days in (times, times.cast(pa.timestamp("ns")), pa.array([1.0, None, 2.5])):
            found = read(colours, days)
            np.testing.assert_array_equal(found["numeric"], np.array([[1, 1], [np.nan, np.nan], [3, 2.5]], np.float32))
            assert found["codes"].ravel().tolist() == [5, 0, 1]
    assert all(len(columns[0]) <= 5 for columns in calls)


def test_each_different_value_is_looked_up_once():
    asked = []

    def look_up(columns):
        asked.extend(columns[0])
        return np.zeros((len(columns[0]), 1), np.int64)

    schema = FeatureSchema((Feature("colour", "category", "v", "id"),), "y", ("0", "1"), "id", "at")
    reader = ColumnReader(schema, look_up=look_up)
    for _ in range(3):
        list(reader.read(pa.RecordBatch.from_pydict({"colour": ["red", "blue", "red"] * 100}), most=50))
    assert sorted(asked) == ["", "blue", "red"]


def test_an_image_of_the_wrong_size_is_named():
    schema = FeatureSchema((Feature("picture", "image", "v", "id", size=4),), "y", ("0", "1"), "id", "at")
    with pytest.raises(DataError, match="column picture: every row needs a list of 4 numbers"):
        list(ColumnReader(schema, look_up=None).read(pa.RecordBatch.from_pydict({"picture": [[1.0, 2.0]]}), most=9))


def test_batches_come_in_order_and_few_are_read_ahead(scorer, network):
    taken = 0

    def batches():
        nonlocal taken
        for number in range(40):
            taken += 1
            yield batch(network.schema, ["value 1"], [float(number)])

    given_out = 0
    for rows, _ in scorer.answer(batches(), prepare=lambda one: one):
        assert rows["n0"][0].as_py() == given_out
        given_out += 1
        assert taken - given_out <= 5
    assert given_out == 40


def test_an_answer_that_is_not_finite_is_refused(tmp_path):
    scorer = scorer_of(tmp_path, TINY_SCHEMA, _tiny_graph(seed=1, breaks_at=7.0))
    rows = {f.name: pa.array([1.0, 7.0]) for f in TINY_SCHEMA.features if f.kind == "numeric"}
    rows |= {
        "arrival_date": pa.array([datetime(2016, 1, 1) + timedelta(days=at) for at in range(2)]),
        "market_segment": ["Direct", "Direct"],
    }
    with pytest.raises(ReleaseError, match="gives no finite answer to row 1"):
        scorer.score(pa.RecordBatch.from_pydict(rows))


def test_arrays_go_to_arrow_and_back_without_a_copy_or_a_change():
    values = np.array([1.5, 2.5], np.float32)
    there = as_arrow(values)
    assert as_numpy(there, missing=0.0).ctypes.data == values.ctypes.data
    assert as_numpy(pa.array([1, None], pa.int32()), missing=9).tolist() == [1, 9]
    assert as_texts(["", "ü", "abc"]).to_pylist() == ["", "ü", "abc"]
