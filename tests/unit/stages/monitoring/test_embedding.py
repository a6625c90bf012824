"""Embedding drift: found where every pixel and every word is as frequent as it was, by the network's own numbers or by a projection."""

from datetime import datetime, timedelta

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from platform_assets.specs.model import MonitoringSpec
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.monitoring.drift import Window, report_window
from platform_assets.stages.monitoring.embedding import DIMENSIONS, Embedding, choose_embeddings, embed_rows, find_penultimate
from platform_assets.stages.monitoring.reference import Reference, build_reference

SIDE, ROWS = 4, 400
PICTURE = FeatureSchema((Feature("pixels", "image", "v", "id", SIDE * SIDE),), "y", ("0", "1"), "id", "at")
TEXT = FeatureSchema((Feature("said", "text", "v", "id"),), "y", ("no", "yes"), "id", "at")
SPEC = MonitoringSpec(window_rows=ROWS)
IMPORTANCE = {"pixels": 1.0, "said": 1.0}


def at(count):
    return pa.array([datetime(2026, 1, 1) + timedelta(minutes=n) for n in range(count)], pa.timestamp("us"))


def pictures(count, *, seed, together):
    """Two patterns on pixels of their own, each of either sign: of one sign `together`, else of opposite ones.

    Each pixel, brightness and contrast are the same in distribution.
    """
    rng = np.random.default_rng(seed)
    one, other = np.zeros(SIDE * SIDE), np.zeros(SIDE * SIDE)
    one[:8], other[8:] = np.tile([1, -1], 4), np.tile([1, 1, -1, -1], 2)
    sign = rng.choice([-1.0, 1.0], count)
    values = sign[:, None] * one + (sign if together else -sign)[:, None] * other + rng.normal(scale=0.3, size=(count, SIDE * SIDE))
    return pa.table({"pixels": pa.array(values.tolist(), pa.list_(pa.float64())), "at": at(count)})


def texts(count, *, seed, in_order):
    """The same words as often in each text, in an order that says something, or in any."""
    rng = np.random.default_rng(seed)
    said = []
    for _ in range(count):
        words = ["the", "room", "was", *(["not", "clean"] if rng.random() < 0.5 else ["clean", "and", "large"])]
        said.append(" ".join(words if in_order else rng.permutation(words)))
    return pa.table({"said": said, "at": at(count)})


def network():
    """A graph of one hidden layer that reads both halves of a picture together."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(SIDE * SIDE, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["image", "w"], ["a"]), helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "b"], ["logits"]), helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]  # fmt: skip
    held = {"w": hidden, "v": rng.normal(size=(16, 2)).astype(np.float32), "b": np.zeros(2, np.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", SIDE * SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def trees():
    node = helper.make_node("Sigmoid", ["scored"], ["probabilities"])
    scored = helper.make_node("TreeEnsembleRegressor", ["image"], ["scored"], domain="ai.onnx.ml")
    held = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("image", "probabilities")]
    return helper.make_model(helper.make_graph([scored, node], "g", held[:1], held[1:])).SerializeToString()


def judge(reference, rows, schema, model=None):
    window = Window(0, 0, rows.num_rows - 1, ("v",))
    return report_window(reference, rows, window=window, schema=schema, probabilities=None, importance=IMPORTANCE, spec=SPEC, model=model)


@pytest.mark.parametrize("model", [network(), None], ids=["network", "projection"])
def test_pictures_whose_pixels_stay_as_they_were_and_whose_parts_do_not_go_together_any_more_are_found(model):
    embeddings = choose_embeddings(PICTURE, model=model or trees())
    assert embeddings == (Embedding("pixels", "h" if model else ""),)
    given = {"schema": PICTURE, "probabilities": None, "spec": SPEC, "importance": IMPORTANCE}
    train = pictures(10 * ROWS, seed=1, together=True)
    reference = build_reference(train, embeddings=embeddings, model=model, **given)
    assert read_record(Reference, to_json(reference)) == reference
    for seed in range(5, 10):
        assert not judge(reference, pictures(ROWS, seed=seed, together=True), PICTURE, model).drifted
    found = judge(reference, pictures(ROWS, seed=3, together=False), PICTURE, model)
    assert found.drifted
    assert all("embedding" in column.column or column.layer == "joint" for column in found.moved)
    blind = build_reference(train, **given)
    assert not judge(blind, pictures(ROWS, seed=3, together=False), PICTURE).drifted, "brightness and contrast say nothing of it"


def test_texts_of_the_same_words_in_another_order_are_found():
    given = {"schema": TEXT, "probabilities": None, "spec": SPEC, "importance": IMPORTANCE}
    train = texts(10 * ROWS, seed=1, in_order=True)
    reference = build_reference(train, embeddings=choose_embeddings(TEXT, model=trees()), **given)
    assert not judge(reference, texts(ROWS, seed=2, in_order=True), TEXT).drifted
    assert judge(reference, texts(ROWS, seed=3, in_order=False), TEXT).drifted
    assert not judge(build_reference(train, **given), texts(ROWS, seed=3, in_order=False), TEXT).drifted


def test_a_network_that_reads_other_columns_too_is_not_asked_for_one_of_them():
    mixed = FeatureSchema((*PICTURE.features, Feature("x", "numeric", "v", "id")), "y", ("0", "1"), "id", "at")
    assert choose_embeddings(mixed, model=network()) == (Embedding("pixels"),)
    assert choose_embeddings(FeatureSchema(mixed.features[1:], "y", (), "id", "at"), model=network()) == ()


def test_the_value_before_the_last_layer_is_found_behind_quantised_ones_too():
    model = onnx.load_model_from_string(network())
    model.graph.node[2].CopyFrom(helper.make_node("MatMulInteger", ["q", "v"], ["m"]))
    model.graph.node.insert(2, helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "s", "z"]))
    model.graph.node.insert(4, helper.make_node("Cast", ["m"], ["logits"], to=1))
    assert find_penultimate(model.SerializeToString()) == "h"
    assert find_penultimate(trees()) == ""


def test_without_its_network_a_window_is_judged_by_what_is_left():
    rows = pictures(20, seed=1, together=True)
    assert embed_rows(rows, (Embedding("pixels", "h"),), schema=PICTURE, model=None) is rows


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=1, max_size=8), st.integers(0, 7))
def test_a_text_alone_is_embedded_as_it_is_among_others(said, place):
    rows = pa.table({"said": pa.array(said, pa.string()), "at": at(len(said))})
    columns = [f"said embedding {number}" for number in range(DIMENSIONS)]
    found = embed_rows(rows, (Embedding("said"),), schema=TEXT, model=None)
    alone = embed_rows(rows.slice(place % len(said), 1), (Embedding("said"),), schema=TEXT, model=None)
    assert [found[name][place % len(said)].as_py() for name in columns] == [alone[name][0].as_py() for name in columns]
