"""What monitoring needs to know of a release, made once from its training set and stored in its bundle as profile.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from platform_assets.answers import open_model
from platform_assets.errors import StageError
from platform_assets.networks.preprocessing import Preprocessing
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.monitoring.embedding import choose_embeddings
from platform_assets.stages.monitoring.estimate import Calibration, calibrate
from platform_assets.stages.monitoring.importance import share_importance
from platform_assets.stages.monitoring.reference import Reference, build_reference

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.specs.model import ModelSpec


@dataclass(frozen=True)
class Profile:
    """Drift reference, each feature's share of the importance, and what its confidence is worth (None where too few rows could tell)."""

    reference: Reference
    importance: dict[str, float]
    calibration: Calibration | None = None


def profile_release(model: ModelSpec, *, model_file: Path, data_dir: Path) -> str:
    """Profile a model file, its preprocessing.json beside it, on its training set folder (shards, schema.json); return canonical JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = read_record(FeatureSchema, (data_dir / "schema.json").read_text(encoding="utf-8"))
    answer = open_model(model_file, schema=schema)
    train, calibration, holdout = (pq.read_table(data_dir / part) for part in ("train", "calibration", "holdout"))
    unseen = np.concatenate([answer(calibration), answer(holdout)])
    tokeniser = None
    if schema.of_kind("text"):
        tokeniser = read_record(Preprocessing, model_file.with_name("preprocessing.json").read_bytes()).tokeniser
    network = model_file.read_bytes()
    importance = share_importance(holdout, schema=schema, kind=model.target.kind, answer=answer)
    reference = build_reference(
        train, schema=schema, probabilities=answer(train), spec=model.monitoring, importance=importance, unseen=unseen,
        tokeniser=tokeniser, embeddings=choose_embeddings(schema, model=network), model=network,
    )  # fmt: skip
    outcomes = pa.concat_tables([part.select([schema.target]) for part in (calibration, holdout)])[schema.target]
    labels = np.array([schema.classes.index(value) for value in outcomes.to_pylist()])
    return to_json(Profile(reference, importance, calibrate(unseen, labels, kind=model.target.kind)))


def read_profile(bundle: ReleaseFiles) -> Profile:
    """Read the profile of a release's bundle; one that another version of this code has written is a StageError."""
    try:
        return read_record(Profile, bundle["profile.json"])
    except ValueError as error:
        raise StageError(
            f"release {bundle.version} holds a drift reference of another form ({error}); retrain the model for one of this form"
        ) from error
