"""Released bundles on given rows: their metrics, their answers, and where two of them differ, so that both are judged on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from platform_assets.answers import open_model
from platform_assets.errors import ReleaseError
from platform_assets.measures import measure
from platform_assets.specs.looks import Tally
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.manifests import ReleaseFiles


def read_schema(bundle: ReleaseFiles) -> FeatureSchema:
    """Return what a bundle reads and answers."""
    return read_record(FeatureSchema, bundle["schema.json"])


def answer_rows(bundle: ReleaseFiles, rows: pa.Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Return labels [N], as indices into the bundle's classes, and its probabilities [N, classes] of rows with features and target.

    None where the bundle reads features that the rows do not have: two different questions cannot be compared.
    """
    schema = read_schema(bundle)
    if not {feature.name for feature in schema.features} <= set(rows.column_names):
        return None
    places = {label: place for place, label in enumerate(schema.classes)}
    texts = rows.column(schema.target).to_pylist()
    unknown = sorted(set(texts) - set(places))
    if unknown:
        found, known = ", ".join(unknown), ", ".join(places)
        raise ReleaseError(f"{bundle.version} does not know the classes {found} of the labelled rows; it knows {known}.")
    labels = np.array([places[text] for text in texts], dtype=np.int64)
    return labels, open_model(bundle["model.onnx"], schema=schema)(rows)


def score_bundle(bundle: ReleaseFiles, data_dir: Path, *, kind: str) -> dict[str, float] | None:
    """Return the metrics of a bundle on the holdout of a training-set folder, None as `answer_rows`."""
    import pyarrow.parquet as pq

    found = answer_rows(bundle, pq.read_table(data_dir / "holdout"))
    return None if found is None else measure(found[0], probabilities=found[1], kind=kind)


def count_worse(champion: ReleaseFiles, challenger: ReleaseFiles, rows: pa.Table) -> Tally:
    """Count the rows that exactly one of two bundles gets right, and on how many of them it is the champion (the pairs of McNemar 1947)."""
    found = [answer_rows(bundle, rows) for bundle in (champion, challenger)] if rows.num_rows else [None]
    right = [one[1].argmax(axis=1) == one[0] for one in found if one is not None]
    if len(right) < 2:  # noqa: PLR2004 - a pair
        return Tally()
    old, new = right
    return Tally(int((old != new).sum()), int((old & ~new).sum()))
