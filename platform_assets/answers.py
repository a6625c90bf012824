"""A model file's answers to a table of feature columns, through onnxruntime. The server has its own, faster way; nothing is judged here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema

_MOST_ROWS = 512  # a text's attention takes half a megabyte a row
_DAY = np.timedelta64(1, "D")


def open_model(model: Path | bytes, *, schema: FeatureSchema, threads: int = 1) -> Callable[[pa.Table], np.ndarray]:
    """Return a function from a table with every feature as a plain column to probabilities, float32 [rows, classes].

    `model`: an ONNX file, or its bytes.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])

    def answer(rows: pa.Table) -> np.ndarray:
        parts = [rows.slice(start, _MOST_ROWS) for start in range(0, rows.num_rows, _MOST_ROWS)]
        found = [session.run(["probabilities"], model_inputs(part, schema=schema))[0] for part in parts]
        return np.concatenate(found) if found else np.zeros((0, len(schema.classes)), np.float32)

    return answer


def model_inputs(rows: pa.Table, *, schema: FeatureSchema) -> dict[str, np.ndarray]:
    """Turn feature columns into the graph's inputs, as specs.records.FeatureSchema says."""
    groups = {
        "numeric": schema.of_kind("numeric", "date"), "categorical": schema.of_kind("category"), "image": schema.of_kind("image"),
        "text": schema.of_kind("text"),
    }  # fmt: skip
    return {name: _array(name, features, rows) for name, features in groups.items() if features}


def _array(name: str, features: tuple[Feature, ...], rows: pa.Table) -> np.ndarray:
    if name in ("categorical", "text"):
        return np.column_stack([rows[f.name].fill_null("").to_numpy(zero_copy_only=False).astype(object) for f in features])
    if name == "image":
        flat = [np.asarray(rows[f.name].combine_chunks().flatten(), np.float32).reshape(-1, f.size) for f in features]
        return np.column_stack(flat)
    return np.column_stack([_numbers(rows[f.name], f) for f in features]).astype(np.float32)


def _numbers(column: pa.ChunkedArray, feature: Feature) -> Any:
    values = column.to_numpy(zero_copy_only=False)
    if feature.kind == "date":
        return (values.astype("datetime64[us]") - np.datetime64("1970-01-01", "us")) / _DAY
    return np.asarray(values, np.float64)
