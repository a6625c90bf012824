"""Texts as Open Inference Protocol tensors; binary data both ways; JSON numbers are asked of a running server."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import RequestError
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.columns import RowReader
from platform_assets.stages.serving.v2 import metadata, read_infer, read_request, read_texts, write_texts

SCHEMA = FeatureSchema((Feature("review", "text", "v", "id"), Feature("stars", "numeric", "v", "id")), "label", ("0", "1"), "id", "at")
BUNDLE = SimpleNamespace(reader=RowReader(SCHEMA, model="texts"), schema=SCHEMA, model="texts", version="1")


def body(*texts):
    return {"inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [len(texts), 1], "data": list(texts)},
        {"name": "numeric", "datatype": "FP32", "shape": [len(texts), 1], "data": [5.0] * len(texts)},
    ]}  # fmt: skip


def test_a_text_is_a_tensor_of_bytes():
    assert {one["name"]: (one["datatype"], one["shape"]) for one in metadata(BUNDLE)["inputs"]} == {
        "numeric": ("FP32", [-1, 1]), "text": ("BYTES", [-1, 1]),
    }  # fmt: skip
    batch = read_infer(body("نظيفة ", ""), bundle=BUNDLE)[0]
    assert batch.text.tolist() == [["نظيفة "], [""]]


@pytest.mark.parametrize("wrong", ["half of a pair \ud83d", "x" * 100_001])
def test_a_text_that_a_graph_cannot_take_is_refused_by_its_tensor(wrong):
    with pytest.raises(RequestError, match="input 'text': every text must have at most 100,000 characters"):
        read_infer(body("good", wrong), bundle=BUNDLE)


NUMBERS = SimpleNamespace(
    reader=RowReader(FeatureSchema((Feature("a", "numeric", "v", "id"), Feature("b", "numeric", "v", "id")), "y", ("no", "yes"), "id", "at"), model="n"),
    schema=SimpleNamespace(classes=("no", "yes")), model="n", version="1", forms={}, shapes={},
    labels=lambda found, shares: [("no", "yes")[best] for best in found.argmax(axis=1)],
)  # fmt: skip
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=50))
def test_numbers_are_the_same_whether_they_come_as_json_or_as_bytes(rows):
    values = np.array(rows, dtype=np.float32)
    tensor = {"name": "numeric", "datatype": "FP32", "shape": [len(rows), 2]}
    as_json, _ = read_infer({"inputs": [{**tensor, "data": values.ravel().tolist()}]}, bundle=NUMBERS)
    blob = values.tobytes()
    as_bytes, _ = read_infer(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}]}, bundle=NUMBERS, binary=memoryview(blob)
    )
    assert as_json.numeric.tobytes() == as_bytes.numeric.tobytes() == blob


@given(st.lists(st.text(), max_size=20))
def test_texts_survive_the_way_through_bytes(texts):
    blob = write_texts(texts)
    assert read_texts(blob, name="categorical", shape=(len(texts), 1)).ravel().tolist() == texts


@pytest.mark.parametrize(
    ("change", "blob", "said"),
    [
        ({}, b"\0" * 15, "16, 15 bytes are left"),
        ({}, b"\0" * 20, "4 bytes of the body belong to no input"),
        ({"data": [1, 2, 3, 4]}, b"\0" * 16, "both data and binary_data_size"),
        ({"datatype": "FP64"}, b"\0" * 16, "ask for 32"),
        ({"parameters": {"binary_data_size": -1}}, b"", "right would be a number of bytes"),
        ({}, np.array([1, 2, np.inf, 4], dtype=np.float32).tobytes(), "infinite"),
    ],
)
def test_wrong_binary_data_are_named(change, blob, said):
    tensor = {"name": "numeric", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}, **change}
    with pytest.raises(RequestError, match=said):
        read_infer({"inputs": [tensor]}, bundle=NUMBERS, binary=memoryview(blob))


@given(st.lists(st.sampled_from(["probabilities", "label"]), unique=True, min_size=1), st.sets(st.sampled_from(["probabilities", "label"])))
def test_each_output_comes_in_the_form_that_was_asked_for(names, binary):
    outputs = [{"name": name, "parameters": {"binary_data": name in binary}} for name in names]
    tensor = {"name": "numeric", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    _, wishes = read_infer({"inputs": [tensor], "outputs": outputs, "id": "mine"}, bundle=NUMBERS)
    found = np.array([[0.25, 0.75], [1, 0]], dtype=np.float32)
    body, extra = wishes.write(SimpleNamespace(bundle=NUMBERS), "r1", found, found.tolist())
    length = int(extra.split(b": ")[-1]) if extra else len(body)
    described, rest = json.loads(body[:length]), body[length:]
    assert described["id"] == "mine"
    for output in described["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        assert (size is not None) == (output["name"] in binary)
        blob, rest = rest[: size or 0], rest[size or 0 :]
        expected = found.tobytes() if output["name"] == "probabilities" else write_texts(["yes", "no"])
        assert (
            blob == expected
            if size is not None
            else output["data"] == (found.ravel().tolist() if output["name"] == "probabilities" else ["yes", "no"])
        )
    assert not rest


def test_a_request_like_the_one_before_is_read_as_if_it_were_the_first():
    bundle = SimpleNamespace(**{**vars(NUMBERS), "shapes": {}})
    tensor = {"name": "numeric", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}).encode()
    length = str(len(text)).encode()
    read = [read_request(text + np.full((2, 2), value, np.float32).tobytes(), length, bundle=bundle) for value in (1.0, 2.0, np.nan)]
    assert list(bundle.shapes) == [text]
    assert [batch.rows for batch, _ in read] == [2, 2, 2]
    assert [batch.numeric.tolist() for batch, _ in read[:2]] == [[[1.0, 1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]
    assert np.isnan(read[2][0].numeric).all()
    assert [wishes.outputs for _, wishes in read] == [("probabilities",)] * 3
    with pytest.raises(RequestError, match="infinite"):
        read_request(text + np.array([1, 2, np.inf, 4], np.float32).tobytes(), length, bundle=bundle)
    with pytest.raises(RequestError, match="15 bytes are left"):
        read_request(text + b"\0" * 15, length, bundle=bundle)


@pytest.mark.parametrize("wrong", ["true", "[true]", "null, 1", '"1"', "{}", "1e39"])
def test_what_is_no_number_of_a_tensor_is_refused_or_missing(wrong):
    text = b'{"inputs":[{"name":"numeric","datatype":"FP32","shape":[1,2],"data":[1,%b]}]}' % wrong.encode()
    with pytest.raises(RequestError, match="input 'numeric'"):
        read_request(text, None, bundle=NUMBERS)


def test_a_value_that_is_missing_is_not_a_number():
    text = b'{"inputs":[{"name":"numeric","datatype":"FP32","shape":[1,2],"data":[1,null]}]}'
    assert np.isnan(read_request(text, None, bundle=NUMBERS)[0].numeric).tolist() == [[False, True]]
