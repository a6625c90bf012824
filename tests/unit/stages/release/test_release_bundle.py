import hashlib
import json
from datetime import datetime, timedelta
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from platform_assets.errors import ReleaseError
from platform_assets.manifests import read_release
from platform_assets.networks.shards import write_training_set
from platform_assets.specs.candidates import Candidate, Rejection, SearchResult
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.feed import FeedReport
from platform_assets.specs.guarantee import Guarantee
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.packages import Package
from platform_assets.specs.record_json import from_mapping, read_record
from platform_assets.specs.records import DriftReport, Feature, FeatureSchema, TablePin, Training, TrainingSet
from platform_assets.stages.monitoring.feed_report import extend_feed, profile_feed
from platform_assets.stages.monitoring.profile import profile_release, read_profile
from platform_assets.stages.monitoring.report import extend_report
from platform_assets.stages.release.bundle import write_bundle
from platform_assets.stages.release.gates import judge
from platform_assets.stages.release.sbom import SBOM_FILE
from platform_assets.stages.release.selection import select
from platform_assets.stages.serving.bundle import build_bundle
from platform_assets.stages.serving.columns import RowReader
from resources.artifacts import FolderArtifactStore
from resources.packages import installed_packages

SCHEMA = FeatureSchema(
    (Feature("price", "numeric", "v", "id"), Feature("arrival", "date", "v", "id"), Feature("channel", "category", "v", "id")),
    "cancelled", ("no", "yes"), "id", "booked",
)  # fmt: skip
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict <cancellations> & resell", "dataset": "d", "features": {"views": ["v"]},
    "target": {"column": "cancelled", "kind": "binary"}, "training": {"architecture": "tabular_mlp"}, "gates": {"auroc": ">= 0.5"},
    "monitoring": {"window_rows": 100},
})  # fmt: skip
DATASET = DatasetSpec.model_validate({
    "name": "d", "owner": "team:a", "description": "Bookings", "source": {"kind": "provided"}, "key": "id", "event_time": "booked",
})  # fmt: skip


PACKAGES = (Package("numpy", "2.4.1", "BSD-3-Clause", serves=True), Package("torch", "2.13.0", None, serves=False))


def table(rows, *, price=100.0):
    rng = np.random.default_rng(1)
    booked = [datetime(2016, 1, 1) + timedelta(hours=n) for n in range(rows)]
    prices = rng.normal(price, 10, rows)
    return pa.table({
        "price": pa.array([None if n == 3 else value for n, value in enumerate(prices)], pa.float64()),
        "arrival": pa.array([at + timedelta(days=int(days)) for at, days in zip(booked, rng.integers(1, 30, rows), strict=True)], pa.timestamp("us")),
        "channel": pa.array([None if n % 50 == 7 else str(rng.choice(["web", "phone"])) for n in range(rows)]),
        "cancelled": np.where(prices > 100, "yes", "no"), "id": [str(n) for n in range(rows)], "booked": pa.array(booked, pa.timestamp("us")),
    })  # fmt: skip


def write_model(path):
    """Probability of yes: a sigmoid of (price - 100) / 10, 0.5 where the price is missing; the category is read and counts nothing."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes = [
        helper.make_node("Gather", ["numeric", "first"], ["price"], axis=1),
        helper.make_node("IsNaN", ["price"], ["missing"]),
        helper.make_node("Where", ["missing", "hundred", "price"], ["filled"]),
        helper.make_node("Sub", ["filled", "hundred"], ["above"]),
        helper.make_node("Div", ["above", "ten"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["yes"]),
        helper.make_node(
            "LabelEncoder", ["categorical"], ["zero"], domain="ai.onnx.ml", keys_strings=[" "], values_floats=[0.0], default_float=0.0
        ),
        helper.make_node("Add", ["yes", "zero"], ["sure"]),
        helper.make_node("Sub", ["one", "sure"], ["no"]),
        helper.make_node("Concat", ["no", "sure"], ["probabilities"], axis=1),
    ]
    constants = {"first": np.array([0]), "hundred": np.float32([[100]]), "ten": np.float32([[10]]), "one": np.float32([[1]])}
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("categorical", TensorProto.STRING, ["n", 1]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9)
    checker.check_model(model)
    save(model, path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    (root / "candidate").mkdir()
    write_model(root / "candidate" / "model.onnx")
    (root / "candidate" / "preprocessing.json").write_text("{}")
    parts = {"train": [table(1000)], "calibration": [table(300)], "holdout": [table(300)]}
    write_training_set(root / "data", parts, schema=SCHEMA)
    return root


def make(parts, folder, *, privacy=None):
    metrics = {"auroc": 0.99, "accuracy": 0.97, "log_loss": 0.3}
    found = [
        Candidate(name, "c" * 64, size, 10, metrics, 0.0, cpu, 9.0, 1.0, 2.0, 0.0, 1.0)
        for name, size, cpu in (("teacher", 900, 80.0), ("int8", 300, 20.0))
    ]
    search = SearchResult(tuple(found), (Rejection("prune", "could not be made: no channels"),))
    selection = select(search.candidates, search.rejected, metric="auroc", compression=MODEL.compression)
    pin = TablePin("dataset/d/protected", 3, 1300, "h")
    write_bundle(
        folder, model=MODEL, dataset=DATASET, selection=selection, search=search, commit="abc", spec_hash="def",
        verdict=judge(MODEL.gates, found=metrics, champion=None, champion_version=None),
        training=Training("t" * 64, "5" * 64, 10, 900, metrics, metrics, {"auroc": 0.98}, 12.0, privacy=privacy),
        training_set=TrainingSet("5" * 64, {"train": 1000, "holdout": 300}, pin, {"v": pin}, "2016-01-01T00:00:00", "2016-02-11T15:00:00"),
        candidate_dir=parts / "candidate", data_dir=parts / "data",
        profile=profile_release(MODEL, model_file=parts / "candidate" / "model.onnx", data_dir=parts / "data"),
        feed=profile_feed(MODEL, data_dir=parts / "data"), packages=PACKAGES,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def bundle(parts, tmp_path_factory):
    return make(parts, tmp_path_factory.mktemp("bundle"))


def test_the_same_inputs_give_the_same_digest(parts, bundle, tmp_path):
    store = FolderArtifactStore(tmp_path / "store")
    assert store.put(bundle) == store.put(make(parts, tmp_path / "again"))


def test_a_private_training_is_told_on_both_cards_and_in_the_lineage(parts, bundle, tmp_path):
    privacy = Guarantee(2.97, 1e-6, 3.0, 1.0, 1.1, 0.0125, 624, 624, "Rényi (opacus 1.6.0)", 9.5)
    folder = make(parts, tmp_path / "private", privacy=privacy)
    assert "epsilon 2.97 (declared 3) at delta 1e-06 for one training row, after 624 of 624 steps" in privacy.sentence
    for card in ("model_card.md", "model_card.html"):
        assert privacy.sentence in (folder / card).read_text()
        assert "ifferential privacy" not in (bundle / card).read_text()
    assert from_mapping(Guarantee, json.loads((folder / "lineage.json").read_text())["privacy"]) == privacy
    assert json.loads((bundle / "lineage.json").read_text())["privacy"] is None


def test_its_bill_of_materials_names_model_data_and_software(bundle):
    text = (bundle / SBOM_FILE).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    model, card = bill["metadata"]["component"], bill["metadata"]["component"]["modelCard"]
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    assert {part["name"]: part["hashes"][0]["content"] for part in model["components"]}["model.onnx"] == digest
    assert {"type": "auroc", "value": "0.99", "slice": "holdout"} in card["quantitativeAnalysis"]["performanceMetrics"]
    assert card["considerations"]["useCases"] == [MODEL.purpose]
    data, *software = bill["components"]
    assert (data["type"], data["hashes"][0]["content"]) == ("data", "5" * 64)
    assert [(one["purl"], one["scope"]) for one in software] == [
        ("pkg:pypi/numpy@2.4.1", "required"),
        ("pkg:pypi/torch@2.13.0", "excluded"),
    ]
    assert bill["dependencies"] == [{"ref": "model", "dependsOn": ["training-set", "pkg:pypi/numpy@2.4.1"]}]


def test_the_packages_are_those_of_this_environment():
    found = {package.name: package for package in installed_packages()}
    assert found["onnxruntime"].serves
    assert found["onnxruntime"].version == version("onnxruntime")
    assert not found["torch"].serves
    assert not found["dagster"].serves
    assert "pytest" not in found, "what tests need is no part of a release"


def test_the_inference_server_takes_the_bundle(bundle):
    assert build_bundle(read_release(bundle).files, path=bundle, model="m", digest="d" * 64).schema == SCHEMA


def test_samples_are_rows_as_a_caller_sends_them(bundle):
    samples = json.loads((bundle / "samples.json").read_text())
    assert len(samples["rows"]) == len(samples["probabilities"]) == 16
    assert list(samples["rows"][0]) == ["arrival", "channel", "price"]
    assert samples["rows"][3]["price"] is None
    assert samples["probabilities"][3] == [0.5, 0.5]
    assert datetime.fromisoformat(samples["rows"][0]["arrival"])


def test_the_manifest_lists_every_file_and_dates_from_the_data(bundle):
    release = read_release(bundle)
    manifest = release.manifest
    assert len(release.files) == 15
    assert (manifest["model"], manifest["candidate"], manifest["created"]) == ("m", "int8", "2016-02-11T15:00:00")


@pytest.mark.parametrize(("change", "word"), [(lambda f: (f / "model.onnx").write_bytes(b"x"), "altered"), (lambda f: (f / "x").touch(), "not listed"),
                                              (lambda f: (f / "model_card.md").unlink(), "missing"), (lambda f: (f / "manifest.json").unlink(), "missing or cannot be read")])  # fmt: skip
def test_a_changed_bundle_is_refused_by_name(parts, tmp_path, change, word):
    folder = make(parts, tmp_path / "b")
    change(folder)
    with pytest.raises(ReleaseError, match=word):
        read_release(folder)


def test_the_card_says_what_for_how_good_and_why_the_others_were_not_taken(bundle):
    html, markdown = (bundle / "model_card.html").read_text(), (bundle / "model_card.md").read_text()
    assert "Predict &lt;cancellations&gt; &amp; resell" in html
    assert "<svg" in html
    assert "http" not in html.replace("<!doctype html>", "")
    for text in ("Predict <cancellations> & resell", "team:a", ">= 0.5", "could not be made: no channels", "2016-02-11T15:00:00"):
        assert text in markdown
    assert "{{" not in html + markdown


def test_the_profile_in_the_bundle_makes_a_report_that_grows_and_does_not_change(bundle):
    profile = read_profile(read_release(bundle))
    assert profile.importance == {"price": 1.0, "arrival": 0.0, "channel": 0.0}

    def log(rows, version="v1"):
        source = table(rows, price=130.0)
        inputs = [
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
            for row in source.select(["price", "arrival", "channel"]).to_pylist()
        ]
        return pa.table({
            "prediction_id": source["id"], "version": [version] * rows, "time": source["booked"], "event_time": source["booked"], "key": source["id"],
            "inputs": [json.dumps(row) for row in inputs], "probabilities": [[0.1, 0.9]] * rows, "actual": pa.array(source["cancelled"].to_pylist()),
        })  # fmt: skip

    known = DriftReport(()), FeedReport()

    def extend(rows, *, bundle):
        feed = extend_feed(known[1], log=rows, bundle=bundle, model=MODEL)
        return extend_report(known[0], log=rows, bundle=bundle, model=MODEL, feed=feed), feed

    one, _ = known = extend(log(150), bundle=read_release(bundle))
    two, _ = known = extend(log(250), bundle=read_release(bundle))
    assert [(w.window, w.drifted) for w in two.windows] == [(0, True), (1, True)]
    assert two.windows[0] == one.windows[0]
    assert two.first_drifted_row == 0
    assert [p.labelled for p in two.performance] == [100, 100]
    assert two.estimates == (), "another release answered: what its confidence is worth is not known"
    own = read_release(bundle)
    three, _ = extend(log(350, own.version), bundle=own)
    (estimate,) = three.estimates
    assert (estimate.window, estimate.metric, estimate.promised) == (2, "auroc", 0.99)
    assert estimate.low <= estimate.value <= estimate.high


def test_the_declarations_of_the_day_are_kept_and_read_back(bundle):
    declared = json.loads((bundle / "declaration.json").read_text())
    assert ModelSpec.model_validate(declared["model"]) == MODEL
    assert DatasetSpec.model_validate(declared["dataset"]) == DATASET


def test_a_manifest_that_names_a_file_outside_the_release_is_refused(bundle, tmp_path):
    folder, manifest = tmp_path / "b", json.loads((bundle / "manifest.json").read_text())
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": [{"path": "../secret", "sha256": "0"}]}))
    with pytest.raises(ReleaseError, match=r"names '\.\./secret', which is outside the release"):
        read_release(folder)


def test_the_bundle_carries_a_typical_row_that_the_server_reads(bundle):
    row = json.loads((bundle / "typical_row.json").read_text())
    train = table(1000)
    assert row["price"] == pytest.approx(np.nanmedian([value if value is not None else np.nan for value in train["price"].to_pylist()]))
    assert row["channel"] == max(["web", "phone"], key=train["channel"].to_pylist().count)
    assert row["arrival"] == sorted(train["arrival"].to_pylist())[499].isoformat()
    assert RowReader(SCHEMA, model="m").encode([row]).rows == 1


def test_whether_features_are_looked_up_online_is_part_of_the_release(parts, tmp_path, monkeypatch):
    assert read_record(FeatureSchema, (make(parts, tmp_path / "with") / "schema.json").read_bytes()).online
    without = MODEL.model_copy(update={"serving": MODEL.serving.model_copy(update={"online_features": False})})
    monkeypatch.setitem(make.__globals__, "MODEL", without)
    assert not read_record(FeatureSchema, (make(parts, tmp_path / "without") / "schema.json").read_bytes()).online
