"""A model that reads texts, from a delivered file to answers: each stage takes the text as it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline.tiny import TinyHome

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.definitions import build_defs
from platform_assets.networks.checkpoint import load_trained
from platform_assets.networks.fitting import predict, to_tensors
from platform_assets.networks.rows import read_rows
from platform_assets.sealing.release import Opener
from platform_assets.specs.candidates import SearchResult
from platform_assets.specs.records import Release, Training
from platform_assets.stages.monitoring.profile import read_profile
from platform_assets.stages.serving.bundle import Bundle, load_bundle
from resources.home import prepare_home
from resources.settings import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = 600
DATASET = """
type: platform_assets.components.dataset.Dataset
attributes:
  name: reviews
  owner: team:tests
  source: {{kind: file, path: "{path}"}}
  key: review_id
  event_time: written_at
  label: {{column: complains, known_at: read_at}}
  columns:
    review_id: {{type: string}}
    written_at: {{type: timestamp}}
    read_at: {{type: timestamp}}
    complains: {{type: integer, nullable: true}}
    review: {{type: text, nullable: true}}
    stars: {{type: integer, minimum: 1, maximum: 5}}
  views:
    review: {{kind: columns, entity: review_id, columns: [review, stars]}}
"""
MODEL = """
type: platform_assets.components.model_pipeline.ModelPipeline
attributes:
  name: complaints
  owner: team:tests
  purpose: See a text pass through every stage
  dataset: reviews
  features: {views: [review]}
  target: {column: complains, kind: binary}
  training: {architecture: text_transformer, width: 16, heads: 2, depth: 1, epochs: 4, batch_size: 32, learning_rate: 0.01, max_tokens: 16, vocabulary: 300, threads: 1}
  gates: {auroc: ">= 0.9"}
  compression: {budget: 4s, methods: [distil, prune, int8], tolerate_drop: 0.3, latency_ms_p99: 50, group_drop: 0.9}
  monitoring: {window_rows: 60}
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyHome, dg.DagsterInstance]]:
    folder = tmp_path_factory.mktemp("texts")
    _deliver(folder / "reviews.parquet")
    for kind, name, text in (("datasets", "reviews", DATASET.format(path=folder / "reviews.parquet")), ("models", "complaints", MODEL)):
        (folder / "defs" / kind / name).mkdir(parents=True)
        (folder / "defs" / kind / name / "defs.yaml").write_text(text)
    tiny = TinyHome(folder / "home", defs=folder / "defs")
    prepare_home(tiny.home, (CHECKOUT / "infra" / "dagster" / "laptop.yaml").read_bytes())
    chain = [keys.dataset_key("reviews", state) for state in ("ingested", "validated", "protected")]
    chain += [keys.features_key("reviews", "review")]
    chain += [keys.model_key("complaints", s) for s in ("training_set", "trained", "candidates", "selected", "gate_verdict", "release")]
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with tiny.instance() as instance:
        job = build_defs(tiny.parts).resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(key) for key in chain], run_config=config)
        assert done.success
        yield tiny, instance


def _deliver(file: Path) -> None:
    rng = np.random.default_rng(5)
    start = datetime(2024, 1, 1)
    label = rng.integers(0, 2, ROWS)
    words = {0: ["clean", "quiet", "kind", "نظيفة", "هادئة"], 1: ["dirty", "noisy", "rude", "قذرة", "صاخبة"]}
    said = [" ".join(["the room was", *rng.choice(words[int(kind)], 3), "بالأمس"]) for kind in label]
    times = pa.array([start + timedelta(hours=row) for row in range(ROWS)], pa.timestamp("us"))
    pq.write_table(pa.table({
        "review_id": [f"r{row}" for row in range(ROWS)], "written_at": times, "read_at": times, "complains": label,
        "review": pa.array([None if row % 50 == 7 else text for row, text in enumerate(said)]), "stars": rng.integers(1, 6, ROWS),
    }), file)  # fmt: skip


def _bundle(tiny: TinyHome, instance: dg.DagsterInstance) -> Bundle:
    release = latest_record(instance, keys.model_key("complaints", "release"), Release)
    return load_bundle(
        tiny.parts.releases.path(release.digest), model="complaints", digest=release.digest, opener=Opener.of(tiny.home.keys)
    )


def test_every_declared_method_is_tried_on_a_text_model(released: tuple[TinyHome, dg.DagsterInstance]) -> None:
    found = latest_record(released[1], keys.model_key("complaints", "candidates"), SearchResult)
    tried = [*(one.name for one in found.candidates), *(one.name for one in found.rejected)]
    assert {name.split("-")[0] for name in tried} >= {"teacher", "distil", "prune", "int8"}
    assert {one.name.split("-")[0] for one in found.candidates} <= {"teacher", "distil", "prune", "int8"}


def test_the_server_reads_raw_texts_and_answers_as_the_trained_network_does(released: tuple[TinyHome, dg.DagsterInstance]) -> None:
    tiny, instance = released
    training = latest_record(instance, keys.model_key("complaints", "trained"), Training)
    search = latest_record(instance, keys.model_key("complaints", "candidates"), SearchResult)
    trained = load_trained(tiny.parts.artefacts.path(training.digest))
    rows = read_rows(tiny.parts.artefacts.path(training.training_set), "holdout", schema=trained.schema)
    expected = predict(trained.network, to_tensors(rows, preprocessing=trained.preprocessing))
    bundle = _bundle(tiny, instance)
    reader = bundle.reader
    asked = [{"review": text or None, "stars": float(stars)} for (text,), (stars,) in zip(rows.passages(), rows.numeric, strict=True)]
    from platform_assets.answers import open_model

    teacher = next(one for one in search.candidates if one.name == "teacher")
    session = open_model(tiny.parts.artefacts.path(teacher.digest) / "model.onnx", schema=trained.schema)
    table = pa.table({"review": pa.array([row["review"] for row in asked]), "stars": pa.array([row["stars"] for row in asked])})
    np.testing.assert_allclose(session(table), expected, atol=1e-5)
    served = bundle.predict(reader.encode(asked))
    alone = np.concatenate([bundle.predict(reader.encode([row])) for row in asked[:10]])
    np.testing.assert_allclose(alone, served[:10], atol=1e-5)
    never = bundle.predict(reader.encode([{"review": "قذرة صاخبة rude"}, {"review": "clean نظيفة kind"}]))
    assert never[0, 1] > 0.5 > never[1, 1]


def test_a_release_carries_its_tokeniser_and_drift_watches_length_and_unknown_share(released: tuple[TinyHome, dg.DagsterInstance]) -> None:
    tiny, instance = released
    opened = tiny.parts.releases.open(latest_record(instance, keys.model_key("complaints", "release"), Release).digest)
    fitted = json.loads(opened["preprocessing.json"])
    assert " room" in fitted["tokeniser"]["pieces"]
    reference = read_profile(opened).reference
    assert {"review length", "review unknown share", "stars"} <= {signal.name for signal in reference.signals}
    assert reference.tokeniser is not None
    assert list(reference.tokeniser.pieces) == fitted["tokeniser"]["pieces"]
