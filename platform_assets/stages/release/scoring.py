"""A released bundle's figures on a given holdout, so that champion and challenger are judged on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.answers import open_model
from platform_assets.errors import ReleaseError
from platform_assets.measures import measure
from platform_assets.specs.records import FeatureSchema, read_record

if TYPE_CHECKING:
    from pathlib import Path


def score_bundle(bundle: Path, data_dir: Path, *, kind: str) -> dict[str, float] | None:
    """Return the metrics of a bundle on the holdout of a training-set folder.

    None where the bundle reads features that the holdout does not have: two different questions cannot be compared.
    """
    import pyarrow.parquet as pq

    schema = read_record(FeatureSchema, (bundle / "schema.json").read_bytes())
    rows = pq.read_table(data_dir / "holdout")
    if not {feature.name for feature in schema.features} <= set(rows.column_names):
        return None
    places = {label: place for place, label in enumerate(schema.classes)}
    texts = rows.column(schema.target).to_pylist()
    unknown = sorted(set(texts) - set(places))
    if unknown:
        found, known = ", ".join(unknown), ", ".join(places)
        raise ReleaseError(f"{bundle.name[:12]} does not know the classes {found} of the holdout; it knows {known}.")
    labels = np.array([places[text] for text in texts])
    return measure(labels, probabilities=open_model(bundle / "model.onnx", schema=schema)(rows), kind=kind)
