"""Texts as Open Inference Protocol tensors; numbers and categories are asked of a running server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from platform_assets.errors import RequestError
from platform_assets.specs.records import Feature, FeatureSchema
from platform_assets.stages.serving.columns import RowReader
from platform_assets.stages.serving.v2 import metadata, read_infer

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
    batch, *_ = read_infer(body("نظيفة ", ""), bundle=BUNDLE)
    assert batch.text.tolist() == [["نظيفة "], [""]]


@pytest.mark.parametrize("wrong", ["half of a pair \ud83d", "x" * 100_001])
def test_a_text_that_a_graph_cannot_take_is_refused_by_its_tensor(wrong):
    with pytest.raises(RequestError, match="input 'text': every text must have at most 100,000 characters"):
        read_infer(body("good", wrong), bundle=BUNDLE)
