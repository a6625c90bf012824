"""The release bundle: a folder whose bytes follow from its inputs alone, so that the same inputs give the same digest.

No wall time enters: `created` is the newest event of the training set. Storing, signing and registering are done elsewhere.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from platform_assets.answers import open_model
from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.release.model_card import render_html, render_markdown
from platform_assets.stages.release.sbom import SBOM_FILE, write_bill
from platform_assets.stages.release.typical_row import TYPICAL_ROW_FILE, find_typical_row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from platform_assets.specs.candidates import SearchResult, Selection
    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec
    from platform_assets.specs.packages import Package
    from platform_assets.specs.records import GateVerdict, Training, TrainingSet

SAMPLE_ROWS = 16


def write_bundle(
    folder: Path,
    *,
    model: ModelSpec,
    dataset: DatasetSpec,
    selection: Selection,
    search: SearchResult,
    verdict: GateVerdict,
    training: Training,
    training_set: TrainingSet,
    candidate_dir: Path,
    data_dir: Path,
    profile: str,
    feed: str,
    commit: str,
    spec_hash: str,
    packages: Sequence[Package],
) -> None:
    """Write a release into an empty or new folder.

    Files: model.onnx, preprocessing.json (what is fitted in it, the tokeniser of texts too), schema.json, samples.json, metrics.json,
    lineage.json, candidates.json, profile.json (drift reference and importance, as monitoring made it), feed.json (what its feed showed
    when it was healthy), typical_row.json (what answers are
    explained against), declaration.json (model and dataset as they were declared), sbom.cdx.json (its bill of materials), model_card.md,
    model_card.html, and manifest.json with the SHA-256 of each. `packages` are those of the environment.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.onnx", "preprocessing.json"):
        shutil.copyfile(candidate_dir / name, folder / name)
    schema_text = (data_dir / "schema.json").read_text(encoding="utf-8")
    schema = replace(read_record(FeatureSchema, schema_text), online=model.serving.online_features)
    sample = pq.read_table(data_dir / "holdout").slice(0, SAMPLE_ROWS)
    lineage = {
        "model": model.name, "spec_hash": spec_hash, "commit": commit, "dataset": asdict(training_set.dataset),
        "views": {name: asdict(pin) for name, pin in training_set.views.items()}, "training_set": training_set.digest,
        "left_out": training_set.left_out,
        "training": training.digest, "warm_start": training.warm_start,
        "privacy": asdict(training.privacy) if training.privacy else None, "candidate": selection.chosen.digest,
        "champion_at_gate": verdict.champion,
    }  # fmt: skip
    metrics = {"holdout": selection.chosen.metrics, "teacher": training.holdout, "baseline": training.baseline, "gates": asdict(verdict)}
    texts = {
        "schema.json": to_json(schema),
        "samples.json": to_json(make_samples(sample, schema=schema, answer=open_model(folder / "model.onnx", schema=schema))),
        "metrics.json": to_json(metrics),
        "lineage.json": to_json(lineage),
        "candidates.json": to_json({"selection": asdict(selection), "not_made": [asdict(one) for one in search.rejected]}),
        "profile.json": profile,
        "feed.json": feed,
        TYPICAL_ROW_FILE: to_json(find_typical_row(data_dir / "train", schema=schema)),
        # In the declared order, which is the order of features: sorted by name it would be another training set.
        "declaration.json": json.dumps({"model": _declared(model), "dataset": _declared(dataset)}),
    }
    texts[SBOM_FILE] = write_bill(
        model=model, dataset=dataset, training=training, training_set=training_set, metrics=selection.chosen.metrics,
        files=list_files(folder), packages=packages,
    )  # fmt: skip
    card: dict[str, Any] = {
        "model": model, "dataset": dataset, "selection": selection, "verdict": verdict, "training": training,
        "training_set": training_set, "lineage": lineage, "schema": schema,
    }  # fmt: skip
    texts |= {"model_card.md": render_markdown(**card), "model_card.html": render_html(**card)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = {"model": model.name, "candidate": selection.chosen.name, "created": training_set.last_event, "files": list_files(folder)}
    (folder / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8")


def _declared(spec: ModelSpec | DatasetSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True)


def make_samples(rows: pa.Table, *, schema: FeatureSchema, answer: Callable[[pa.Table], np.ndarray]) -> dict[str, Any]:
    """Rows as a caller would send them (only features, dates as ISO 8601, null for missing), and the answers the model must give."""
    names = [feature.name for feature in schema.features]
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows.select(names).to_pylist()]
    return {"rows": plain, "probabilities": [[float(share) for share in shares] for shares in answer(rows)]}


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  (NaN is missing)
