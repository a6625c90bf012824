"""The exported graph answers as the trained network does, for any row, alone or in company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import Trained
from platform_assets.networks.export import export_onnx
from platform_assets.networks.fitting import predict, to_tensors
from platform_assets.networks.preprocessing import category_ids, fit_preprocessing
from platform_assets.networks.rows import read_rows
from tests.unit.networks.tiny import CASES, REVIEWS, TABULAR, plan, reviews, tabular, write_set


def _number(most: float):
    return st.one_of(st.just(float("nan")), st.floats(-most, most, width=32))


ROWS = st.lists(
    st.tuples(
        _number(1e6),
        _number(30_000),
        _number(1e3),
        st.sampled_from(["web", "phone", "desk", "", "AE", "never seen", "0=web", "ü"]),
        st.sampled_from(["AE", "OM", "", "web", "XX"]),
    ),
    min_size=1,
    max_size=12,
)


def _untrained(folder, architecture):
    make, schema, kind = CASES[architecture]
    data = write_set(folder / "data", make(), schema)
    torch.manual_seed(1)
    preprocessing = fit_preprocessing(data, schema=schema)
    network = build_network(plan(architecture, kind=kind), preprocessing=preprocessing, classes=len(schema.classes)).eval()
    trained = Trained(network, plan(architecture, kind=kind), preprocessing, schema)
    export_onnx(trained, folder / "model.onnx")
    return (
        trained,
        ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"]),
        read_rows(data, "train", schema=schema),
    )


@pytest.fixture(scope="module", params=["tabular_transformer", "tabular_mlp"])
def exported(request, tmp_path_factory):
    trained, session, _ = _untrained(tmp_path_factory.mktemp(request.param), request.param)
    return trained, session


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_onnx_agrees_with_torch_and_a_row_alone_equals_the_row_in_a_batch(exported, rows):
    trained, session = exported
    numeric = np.array([row[:3] for row in rows], np.float32)
    strings = np.array([row[3:] for row in rows], object)
    together = session.run(None, {"numeric": numeric, "categorical": strings})[0]
    alone = np.concatenate(
        [session.run(None, {"numeric": numeric[i : i + 1], "categorical": strings[i : i + 1]})[0] for i in range(len(rows))]
    )
    ids = category_ids([pa.array(strings[:, 0].tolist()), pa.array(strings[:, 1].tolist())], preprocessing=trained.preprocessing)
    torch_says = predict(trained.network, (torch.from_numpy(numeric), torch.from_numpy(ids), torch.empty(len(rows), 0)))
    assert together.shape == (len(rows), 2)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(torch_says, together, atol=1e-5)


def test_a_category_of_another_column_is_unknown_here(exported):
    _, session = exported
    numeric = np.zeros((2, 3), np.float32)
    answers = session.run(None, {"numeric": numeric, "categorical": np.array([["AE", "AE"], ["no such", "AE"]], object)})[0]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


@pytest.mark.parametrize("architecture", ["vision_transformer", "convolutional"])
def test_an_exported_picture_model_takes_any_number_of_rows(tmp_path, architecture):
    trained, session, rows = _untrained(tmp_path, architecture)
    together = session.run(None, {"image": rows.image})[0]
    alone = session.run(None, {"image": rows.image[5:6]})[0]
    np.testing.assert_allclose(together[5:6], alone, atol=1e-5)
    ids = torch.empty(len(rows), 0, dtype=torch.int64)
    np.testing.assert_allclose(
        predict(trained.network, (torch.empty(len(rows), 0), ids, torch.from_numpy(rows.image))), together, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ["text_transformer", "tabular_mlp"])
def test_an_exported_text_model_takes_raw_texts_and_a_row_alone_equals_the_row_in_a_batch(tmp_path, architecture):
    data = write_set(tmp_path / "data", reviews(), REVIEWS)
    torch.manual_seed(1)
    preprocessing = fit_preprocessing(data, schema=REVIEWS, vocabulary=300, max_tokens=20)
    network = build_network(plan(architecture), preprocessing=preprocessing, classes=2).eval()
    export_onnx(Trained(network, plan(architecture), preprocessing, REVIEWS), tmp_path / "model.onnx")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    rows = read_rows(data, "holdout", schema=REVIEWS)
    texts = rows.passages()
    texts[0], texts[1], texts[2] = "", "قذرة " * 500, "\n\t 😀 never seen"
    given = {"numeric": rows.numeric, "categorical": rows.strings(), "text": texts}
    together = session.run(None, given)[0]
    alone = np.concatenate([session.run(None, {name: part[i : i + 1] for name, part in given.items()})[0] for i in range(len(rows))])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    asked = replace(rows, text=(pa.array(texts[:, 0].tolist()),))
    np.testing.assert_allclose(predict(network, to_tensors(asked, preprocessing=preprocessing)), together, atol=1e-5)
    assert {one.name: one.shape[1] for one in session.get_inputs()} == {"numeric": 1, "categorical": 1, "text": 1}


def test_the_inputs_are_those_of_the_interface(exported):
    _, session = exported
    assert {(one.name, one.type, one.shape[1]) for one in session.get_inputs()} == {
        ("numeric", "tensor(float)", 3),
        ("categorical", "tensor(string)", 2),
    }
    assert [one.name for one in session.get_outputs()] == ["probabilities"]


def test_a_training_set_of_categories_alone_can_be_exported(tmp_path):
    schema = type(TABULAR)(TABULAR.of_kind("category"), "label", ("0", "1"), "key", "at")
    data = write_set(tmp_path / "data", tabular(), schema)
    rows = read_rows(data, "train", schema=schema)
    preprocessing = fit_preprocessing(data, schema=schema)
    network = build_network(plan("tabular_transformer"), preprocessing=preprocessing, classes=2).eval()
    export_onnx(Trained(network, plan("tabular_transformer"), preprocessing, schema), tmp_path / "model.onnx")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"categorical": rows.strings()})[0].shape == (len(rows), 2)
