"""A serving target in memory, and tiny real releases for tests of the server. Nothing here is used in production."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.errors import RequestError, ServingError
from platform_assets.manifests import MANIFEST_FILE, list_files, read_release
from platform_assets.specs.log_counts import LogCounts
from platform_assets.specs.looks import LATENCY_BOUNDS
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import ArmFigures, Feature, FeatureSchema
from platform_assets.specs.service import PACE_BOUNDS, PaceCounts

if TYPE_CHECKING:
    import numpy as np
    from onnx import NodeProto

TINY_SCHEMA = FeatureSchema(
    features=(
        Feature("lead_time", "numeric", "booking", "booking_id"),
        Feature("adr", "numeric", "booking", "booking_id"),
        Feature("arrival_date", "date", "booking", "booking_id"),
        Feature("market_segment", "category", "booking", "booking_id"),
        Feature("mean_adr_90d", "numeric", "market_demand", "market_segment"),
    ),
    target="is_canceled",
    classes=("0", "1"),
    key="booking_id",
    event_time="booking_date",
)
TINY_ROW = {"lead_time": 30, "adr": 80.5, "arrival_date": "2016-07-01", "market_segment": "Online TA", "mean_adr_90d": 90.0}


class MemoryServing:
    """Serving target without a server. `count` plays the traffic that a real one would see."""

    def __init__(self, releases: set[str]) -> None:
        """`releases` are the digests that pass their checks."""
        self._releases = releases
        self._models: dict[str, dict[str, Any]] = {}
        self._loaded: dict[str, list[str]] = {}
        self.log_segments: list[Path] = []

    def load(self, model: str, digest: str) -> None:
        """Take a release; one that is not among the good ones is refused."""
        if digest not in self._releases:
            raise ServingError(f"release {digest[:12]} of {model} was refused: it does not give its recorded answers")
        loaded = self._loaded.setdefault(model, [])
        if digest not in loaded:
            loaded.append(digest)

    def set_traffic(self, model: str, *, live: str, challenger: str | None = None, mode: str = "live", percent: int = 0) -> None:
        """Set who answers, with fresh figures."""
        for digest in (live, challenger):
            if digest is not None and digest not in self._loaded.get(model, []):
                raise RequestError(f"{digest!r} is not loaded for {model}")
        arms = {digest: ArmFigures(digest[:12], 0, 0, 0, 0.0, 0.0) for digest in (live, challenger) if digest is not None}
        self._models[model] = {
            "model": model, "live": live, "challenger": challenger, "mode": mode, "percent": percent, "arms": arms,
            "compared_rows": 0, "disagreements": 0,
        }  # fmt: skip

    def status(self, model: str) -> dict[str, Any]:
        """Traffic and figures; a model that was never live has nothing live."""
        empty: dict[str, Any] = {
            "model": model, "live": None, "challenger": None, "mode": "live", "percent": 0, "arms": {},
            "compared_rows": 0, "disagreements": 0,
        }  # fmt: skip
        found = self._models.get(model, empty)
        return {**found, "arms": dict(found["arms"])}

    def arms(self, model: str) -> dict[str, ArmFigures]:
        """Figures since the last change of traffic."""
        return dict(self.status(model)["arms"])

    def rotate_log(self, model: str) -> list[Path]:
        """Segments that the test laid out."""
        del model
        return list(self.log_segments)

    def log_counts(self, model: str) -> LogCounts:
        """Rows that `count` played are all written."""
        rows = sum(arm.rows for arm in self.status(model)["arms"].values())
        return LogCounts(accepted=rows, written=rows)

    def count(
        self,
        model: str,
        digest: str,
        *,
        requests: int = 1,
        errors: int = 0,
        latency_ms: float = 1.0,
        compared: int = 0,
        disagreements: int = 0,
        cpu_seconds: float = 0.001,
    ) -> None:
        """Play traffic for one version."""
        found = self._models[model]
        arm: ArmFigures = found["arms"][digest]
        found["arms"][digest] = replace(
            arm, requests=arm.requests + requests, rows=arm.rows + requests, errors=arm.errors + errors,
            latency_ms_p50=latency_ms, latency_ms_p99=latency_ms,
            latency_counts=_counted(arm.latency_counts, latency_ms, requests - errors),
            paces=_paced(arm.paces, latency_ms, requests - errors, cpu_seconds),
        )  # fmt: skip
        found["compared_rows"] += compared
        found["disagreements"] += disagreements


def _counted(counts: tuple[int, ...], latency_ms: float, requests: int) -> tuple[int, ...]:
    found = list(counts or (0,) * (len(LATENCY_BOUNDS) + 1))
    found[bisect_left(LATENCY_BOUNDS, latency_ms / 1000)] += requests
    return tuple(found)


def _paced(paces: tuple[PaceCounts, ...], latency_ms: float, requests: int, cpu_seconds: float) -> tuple[PaceCounts, ...]:
    first, *others = paces or [PaceCounts()] * (len(PACE_BOUNDS) + 1)
    counts = _counted(first.latency_counts, latency_ms, requests)
    return (PaceCounts(first.runs + requests, first.rows + requests, first.cpu_seconds + cpu_seconds, counts), *others)


def write_tiny_release(folder: Path, *, model: str, seed: int, breaks_at: float | None = None, altered_answers: float = 0.0) -> str:
    """Write a whole release in the open with a linear model of `TINY_SCHEMA`; return its digest.

    `breaks_at`: lead time at which its answer is not a number; `altered_answers`: added to the recorded answers, so that it is refused.
    """
    import onnxruntime as ort

    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_tiny_graph(seed=seed, breaks_at=breaks_at))
    (folder / "schema.json").write_text(to_json(TINY_SCHEMA))
    rows = [{**TINY_ROW, "lead_time": lead} for lead in (0, 17, 300)] + [{"booking_id": "b1", "market_segment": "never seen"}]
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(["probabilities"], _tiny_inputs(rows))[0] + altered_answers
    (folder / "samples.json").write_text(json.dumps({"rows": rows, "probabilities": answers.tolist()}))
    typical = {**TINY_ROW, "lead_time": 60, "market_segment": "Direct", "arrival_date": "2016-06-01T00:00:00"}
    (folder / "typical_row.json").write_text(json.dumps(typical))
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": model, "candidate": "tiny", "files": list_files(folder)}))
    return read_release(folder).digest


def _tiny_inputs(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    import numpy as np

    from platform_assets.stages.serving.columns import days_since_epoch

    numeric = [
        [
            row.get("lead_time", np.nan), row.get("adr", np.nan),
            days_since_epoch(row["arrival_date"]) if "arrival_date" in row else np.nan, row.get("mean_adr_90d", np.nan),
        ]
        for row in rows
    ]  # fmt: skip
    return {
        "numeric": np.array(numeric, dtype=np.float32),
        "categorical": np.array([[row.get("market_segment", "")] for row in rows], dtype=object),
    }


def _tiny_graph(*, seed: int, breaks_at: float | None) -> bytes:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {
        "zero": np.zeros(1, dtype=np.float32),
        "scale": np.array([0.02, 0.01, 1e-5, 0.01], dtype=np.float32),
        "weights": random.normal(size=(5, 2)).astype(np.float32),
    }
    nodes: list[NodeProto] = [
        helper.make_node("IsNaN", ["numeric"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "numeric"], ["filled"]),
        helper.make_node("Mul", ["filled", "scale"], ["scaled"]),
        helper.make_node(
            "LabelEncoder", ["categorical"], ["coded"], domain="ai.onnx.ml",
            keys_strings=["Online TA", "Direct"], values_floats=[1.0, -1.0], default_float=0.0,
        ),
        helper.make_node("Concat", ["scaled", "coded"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "weights"], ["logits"]),
    ]  # fmt: skip
    last = "logits"
    if breaks_at is not None:
        constants |= {"shift": np.array([breaks_at, 0, 0, 0], dtype=np.float32), "first": np.array([0], dtype=np.int64)}
        nodes += [
            helper.make_node("Sub", ["filled", "shift"], ["distance"]),
            helper.make_node("Gather", ["distance", "first"], ["column"], axis=1),
            helper.make_node("Div", ["column", "column"], ["one_or_nan"]),
            helper.make_node("Mul", ["logits", "one_or_nan"], ["broken"]),
        ]
        last = "broken"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes, "tiny",
        [
            helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("categorical", TensorProto.STRING, ["n", 1]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return content
