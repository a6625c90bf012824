"""Each method does what its name says, or says why it does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from platform_assets.networks.architectures import build_network
from platform_assets.networks.checkpoint import Trained
from platform_assets.networks.export import export_onnx
from platform_assets.networks.fitting import predict, to_tensors
from platform_assets.networks.plans import CompressionPlan
from platform_assets.networks.preprocessing import fit_preprocessing
from platform_assets.networks.rows import read_rows
from platform_assets.stages.compression.graph import serialise, write_graph
from platform_assets.stages.compression.measure import answer, cut, feeds, open_session
from platform_assets.stages.compression.methods import Bench, CompressionRefusedError, load_method, read_steps
from platform_assets.stages.compression.methods.pack import round_to_grid
from platform_assets.stages.compression.methods.qat import OnGrid, settle
from platform_assets.stages.compression.teaching import Teaching, make_lessons, teach
from tests.unit.networks.tiny import CASES, Silent, plan, write_set


class Made:
    """An untrained network, its rows, and what a method is given."""

    def __init__(self, folder, architecture):
        make, schema, kind = CASES[architecture]
        self.data = write_set(folder / "data", make(), schema)
        torch.manual_seed(1)
        fitted = fit_preprocessing(self.data, schema=schema, vocabulary=200, max_tokens=16)
        told = plan(architecture, kind=kind)
        network = build_network(told, preprocessing=fitted, classes=len(schema.classes)).eval()
        self.trained = Trained(network, told, fitted, schema)
        self.rows = {split: read_rows(self.data, split, schema=schema) for split in ("train", "calibration", "holdout")}
        train = to_tensors(self.rows["train"], preprocessing=fitted)
        self.lessons = make_lessons(self.trained, train=train, labels=self.rows["train"].labels, seconds=0.1)
        self.teaching = Teaching(
            self.trained, CompressionPlan(kind), self.lessons, self.rows["train"], to_tensors(self.rows["calibration"], preprocessing=fitted),
            self.rows["calibration"], Silent(), lambda: 1.0,
        )  # fmt: skip
        self.file = folder / "teacher" / "model.onnx"
        self.file.parent.mkdir()
        export_onnx(self.trained, self.file)
        self.inputs = feeds(self.rows["holdout"])
        self.bench = Bench(cut(self.inputs, 0, 32), lambda model: answer(open_session(model, threads=1), cut(self.inputs, 0, 32)))

    def start(self, name, model=None):
        (step,) = read_steps(name)
        return load_method(step.method).start(model or self.trained.network, step.option, self.teaching)

    def write(self, name, target, source=None):
        (step,) = read_steps(name)
        load_method(step.method).write(source or self.file, target, step.option, self.bench)
        return target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    known = {}

    def get(architecture):
        if architecture not in known:
            known[architecture] = Made(tmp_path_factory.mktemp(architecture), architecture)
        return known[architecture]

    return get


STUDENTS = [
    ("tabular_transformer", "distil-w16d1"), ("tabular_transformer", "distil-w8d2v2"), ("tabular_transformer", "distil-w8d1h"),
    ("tabular_transformer", "trees-5x4"), ("tabular_transformer", "tables-6x3"), ("vision_transformer", "distil-w16d2"),
    ("vision_transformer", "distil-c4"), ("vision_transformer", "distil-s6h"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "name"), STUDENTS)
def test_the_graph_a_student_writes_answers_as_it_does_in_torch(made, tmp_path, architecture, name):
    one = made(architecture)
    student = one.start(name)
    write_graph(student.write(one.trained.preprocessing), tmp_path / "model.onnx")
    found = answer(open_session(tmp_path / "model.onnx", threads=1), one.inputs)
    inputs = to_tensors(one.rows["holdout"], preprocessing=one.trained.preprocessing)
    if isinstance(student, nn.Module):
        expected = predict(student, inputs)
    else:
        logits = student.logits(student.code.encode(inputs[0].numpy(), inputs[1].numpy()))
        expected = torch.from_numpy(logits).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["distil-w16d1", "trees-5x4", "tables-6x3"])
@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.just(float("nan")), st.floats(-1e5, 1e5, width=32)), st.one_of(st.just(float("nan")), st.floats(0, 30_000, width=32)),
            st.one_of(st.just(float("nan")), st.floats(-1e3, 1e3, width=32)), st.sampled_from(["web", "phone", "", "AE", "never seen"]),
            st.sampled_from(["AE", "OM", "", "web"]),
        ), min_size=1, max_size=8,
    )
)  # fmt: skip
def test_any_row_alone_equals_the_row_in_company(made, name, rows):
    one = made("tabular_transformer")
    session = one.__dict__.setdefault(name, None) or open_session(serialise(one.start(name).write(one.trained.preprocessing)), threads=1)
    one.__dict__[name] = session
    given = {"numeric": np.array([row[:3] for row in rows], np.float32), "categorical": np.array([row[3:] for row in rows], object)}
    together = answer(session, given)
    alone = np.concatenate([answer(session, cut(given, place, 1)) for place in range(len(rows))])
    assert np.isfinite(together).all()
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_a_category_of_another_column_is_unknown_to_a_student(made):
    one = made("tabular_transformer")
    for name in ("distil-w16d1", "trees-5x4", "tables-6x3"):
        session = open_session(serialise(one.start(name).write(one.trained.preprocessing)), threads=1)
        given = {"numeric": np.zeros((2, 3), np.float32), "categorical": np.array([["AE", "AE"], ["no such", "AE"]], object)}
        first, second = answer(session, given)
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_teaching_brings_a_student_nearer_to_its_teacher(made):
    one = made("vision_transformer")
    for name, hints in (("distil-w16d1", False), ("distil-s6h", True)):
        student = one.start(name)
        inputs, said = one.lessons.inputs, one.lessons.targets
        before = nn.functional.cross_entropy(student(*inputs), said)
        teach(student, one.teaching, seconds=0.5, rate=6e-3, name=name, hints=hints)
        assert nn.functional.cross_entropy(student(*inputs), said) < before - 0.05


def test_lessons_hold_the_real_rows_first_and_variations_that_the_teacher_answered(made):
    one = made("tabular_transformer")
    plain = len(one.rows["train"])
    assert one.lessons.plain == plain
    assert len(one.lessons) >= 2 * plain
    first = to_tensors(one.rows["train"], preprocessing=one.trained.preprocessing)
    assert torch.equal(torch.nan_to_num(one.lessons.inputs[0][:plain]), torch.nan_to_num(first[0]))
    varied = tuple(part[plain:] for part in one.lessons.inputs)
    np.testing.assert_allclose(one.lessons.targets[plain:].numpy(), predict(one.trained.network, varied), atol=1e-5)
    assert not torch.equal(varied[1][:plain], first[1])


@pytest.mark.parametrize(
    ("architecture", "name", "why"),
    [
        ("vision_transformer", "trees-5x4", "neither pictures nor texts"),
        ("vision_transformer", "tables-5x4", "neither pictures nor texts"),
        ("tabular_transformer", "distil-c8", "one picture and nothing else"),
        ("tabular_transformer", "distil-b8q", "no student of the form"),
        ("text_transformer", "distil-w16d1", "bag of its word pieces"),
        ("tabular_mlp", "exit-1", "has no row of more than 1 blocks"),
        ("vision_transformer", "exit-2", "has no row of more than 2 blocks"),
        ("vision_transformer", "prune-1", "cuts not one channel"),
        ("vision_transformer", "low_rank-100", "no matrix that 100 %"),
    ],
)
def test_a_method_that_the_network_forbids_says_why(made, architecture, name, why):
    with pytest.raises(CompressionRefusedError, match=why):
        made(architecture).start(name)


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(CompressionRefusedError, match=r"no compression method 'squash'; known: distil, trees"):
        read_steps("distil-w8d1+squash-2")


@pytest.mark.parametrize("name", ["prune-50", "exit-1", "low_rank-25"])
def test_a_cut_network_has_fewer_weights_and_answers(made, name):
    one = made("vision_transformer")
    network = one.start(name)
    count = lambda part: sum(weight.numel() for weight in part.parameters())  # noqa: E731
    assert count(network) < count(one.trained.network)
    assert network(*one.lessons.inputs).shape == (len(one.lessons), 3)


def test_a_full_rank_is_the_same_function(made):
    from platform_assets.stages.compression.methods.low_rank import LowRank

    torch.manual_seed(0)
    layer = nn.Linear(6, 9)
    given = torch.randn(5, 6)
    torch.testing.assert_close(LowRank(layer, 6)(given), layer(given), atol=1e-5, rtol=1e-5)


def test_pruning_a_student_keeps_the_graph_it_writes_right(made, tmp_path):
    one = made("vision_transformer")
    student = one.start("prune-50", one.start("distil-s6"))
    write_graph(student.write(one.trained.preprocessing), tmp_path / "model.onnx")
    inputs = to_tensors(one.rows["holdout"], preprocessing=one.trained.preprocessing)
    np.testing.assert_allclose(answer(open_session(tmp_path / "model.onnx", threads=1), one.inputs), predict(student, inputs), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 8]), st.booleans())
def test_no_weight_is_farther_from_its_code_than_the_grid_allows(seed, bits, channels):
    weight = np.random.default_rng(seed).normal(size=(7, 5)).astype(np.float32)
    codes, steps = round_to_grid(weight, bits=bits, axes=(1,) if channels else ())
    most = 2 ** (bits - 1) - 1
    assert np.abs(codes).max() <= most
    inside = np.abs(weight) <= steps * most
    assert (np.abs(codes * steps - weight)[inside] <= (np.broadcast_to(steps, weight.shape) / 2 + 1e-6)[inside]).all()


def test_weights_learnt_on_a_grid_are_packed_without_a_loss(made, tmp_path):
    one = made("vision_transformer")
    plain = one.start("distil-w16d1")
    tuned = one.start("qat-4", plain)
    assert any(isinstance(part, OnGrid) for part in tuned.modules())
    teach(tuned, one.teaching, seconds=0.3, rate=1e-3, name="qat")
    settled = settle(tuned, plain=plain)
    assert not any(isinstance(part, OnGrid) for part in settled.modules())
    write_graph(settled.write(one.trained.preprocessing), tmp_path / "float.onnx")
    one.write("pack-4", tmp_path / "packed.onnx", tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "packed.onnx")
    assert sum(tensor.data_type == onnx.TensorProto.INT4 for tensor in model.graph.initializer) >= 1
    left, right = (answer(open_session(tmp_path / f"{name}.onnx", threads=1), one.inputs) for name in ("float", "packed"))
    np.testing.assert_allclose(left, right, atol=0.01)


@pytest.mark.parametrize("bits", ["16", "8", "4"])
def test_packed_constants_are_folded_when_the_graph_is_loaded(made, tmp_path, bits):
    import onnxruntime

    one = made("vision_transformer")
    write_graph(one.start("distil-w16d1").write(one.trained.preprocessing), tmp_path / "float.onnx")
    one.write(f"pack-{bits}", tmp_path / "packed.onnx", tmp_path / "float.onnx")
    assert (tmp_path / "packed.onnx").stat().st_size < (tmp_path / "float.onnx").stat().st_size
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "packed.onnx"), options, providers=["CPUExecutionProvider"])
    loaded = [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node]
    assert "Cast" not in loaded
    assert "Mul" not in loaded


def test_a_convolution_of_few_pixels_is_one_product_when_it_is_loaded(made, tmp_path):
    import onnxruntime

    one = made("vision_transformer")
    write_graph(one.start("distil-s6").write(one.trained.preprocessing), tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    assert {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node} <= {"Gemm", "FusedGemm", "Relu", "Softmax"}


def test_static_int8_leaves_the_most_sensitive_products_in_float(made, tmp_path):
    """An untrained network's answers move by 0.02 when all of it is rounded: some stays, or the whole is refused with the figure."""
    try:
        made("vision_transformer").write("static", tmp_path / "model.onnx")
    except CompressionRefusedError as refusal:
        assert "products in float" in str(refusal)  # noqa: PT017
    else:
        graph = onnx.load(tmp_path / "model.onnx").graph
        one = made("vision_transformer")
        moved = np.abs(
            answer(open_session(tmp_path / "model.onnx", threads=1), one.inputs) - answer(open_session(one.file, threads=1), one.inputs)
        )
        assert any(node.op_type == "DequantizeLinear" for node in graph.node)
        assert moved.mean() <= 0.01


@pytest.mark.parametrize("name", ["fuse", "int8", "int8-4"])
def test_a_file_rewritten_answers_nearly_as_before(made, tmp_path, name):
    one = made("vision_transformer")
    one.write(name, tmp_path / "model.onnx")
    left, right = (answer(open_session(file, threads=1), one.inputs) for file in (one.file, tmp_path / "model.onnx"))
    np.testing.assert_allclose(left, right, atol={"fuse": 1e-5, "int8": 0.01, "int8-4": 0.15}[name])


def test_convolutions_have_no_matrix_product_to_quantise(made, tmp_path):
    with pytest.raises(CompressionRefusedError, match=r"convolutions stay in float|no matrix product"):
        made("convolutional").write("int8", tmp_path / "model.onnx")


def test_packed_attributes_read_back_as_the_same_model(made):
    model = made("tabular_transformer").start("trees-5x4").write(made("tabular_transformer").trained.preprocessing)
    packed = serialise(model)
    assert len(packed) < len(model.SerializeToString())
    assert onnx.load_from_string(packed) == model
