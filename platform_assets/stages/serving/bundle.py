"""A release as the server holds it: signature and files verified, one warmed session, checked against recorded answers.

Reading requests is columns.py; choosing which bundle answers is traffic.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from platform_assets.errors import ReleaseError, RequestError, ServingError
from platform_assets.manifests import MANIFEST_FILE, VERSION_DIGITS
from platform_assets.sealing.release import Opener
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.serving.bound import MAX_BOUND_ROWS, BoundRuns
from platform_assets.stages.serving.columns import Encoded, RowReader

MODEL_FILE, SCHEMA_FILE, SAMPLES_FILE = "model.onnx", "schema.json", "samples.json"
TYPICAL_ROW_FILE = "typical_row.json"
TOLERANCE = 1e-3  # largest difference to a recorded probability: other CPUs round differently, a wrong model differs more
MAX_RUN_ROWS = 512  # rows of one session.run: bounds memory and the time other requests wait
_SLOW_SECONDS, _SLOW_TIMES = 0.005, 10.0  # a row may take this long, or this many times what it takes the champion
_SPEED_RUNS, _SPEED_SECONDS = 20, 1.0
_FEW_ROWS = 8  # up to here lists are faster than numpy

# What onnxruntime raises has no common base below Exception.
RUN_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


@dataclass(eq=False)
class Bundle:
    """One loaded release; equal only to itself, so that it can key a batch. Without a session it is unloaded until `revive`."""

    model: str
    digest: str
    path: Path
    schema: FeatureSchema
    reader: RowReader
    session: Any
    size_bytes: int
    sample: Encoded | None = None  # a recorded row
    used_at: float = 0.0
    typical: dict[str, Any] | None = None  # the row that answers are explained against
    bound: BoundRuns | None = None  # where the graph takes numbers alone
    forms: dict[Any, bytes] = field(default_factory=dict)  # of replies, and shapes of requests by their JSON, which v2.py keeps here
    shapes: dict[bytes, Any] = field(default_factory=dict)
    opener: Opener | None = None  # what opens it again

    @cached_property
    def version(self) -> str:
        """First twelve digits of the digest, as releases are named."""
        return self.digest[:VERSION_DIGITS]

    def labels(self, found: np.ndarray, shares: list[list[float]]) -> list[str]:
        """Most probable class of each row, from the probabilities as an array and as lists."""
        classes = self.schema.classes
        if len(shares) <= _FEW_ROWS:
            return [classes[row.index(max(row))] for row in shares]
        return [classes[best] for best in found.argmax(axis=1).tolist()]

    def predict(self, batch: Encoded) -> np.ndarray:
        """Probabilities float32 [rows, classes]; an answer that is not finite or not of this shape raises ServingError."""
        parts = [self._run(batch.slice(start, start + MAX_RUN_ROWS)) for start in range(0, batch.rows, MAX_RUN_ROWS)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def answer(self, batch: Encoded) -> np.ndarray:
        """As `predict`, for one thread alone: few packed rows go through buffers that are bound once."""
        numbers, rows = batch.numbers, batch.rows
        if self.bound is None or rows > MAX_BOUND_ROWS or type(numbers) is not bytes:
            return self.predict(batch)
        self.used_at = monotonic()
        try:
            found = self.bound.run(numbers, rows)
        except RUN_ERRORS as error:
            raise self._broken(error) from error
        return self._checked(found, rows)

    def unload(self) -> None:
        """Give the session's memory back."""
        self.session = self.bound = None

    def revive(self) -> None:
        """Build the session again from the release's files, verified anew."""
        again = load_bundle(self.path, model=self.model, digest=self.digest, opener=self.opener)
        self.bound, self.session = again.bound, again.session

    def _run(self, batch: Encoded) -> np.ndarray:
        session = self.session
        if session is None:  # a shadow's thread waits for no event loop
            self.revive()
            session = self.session
        self.used_at = monotonic()
        try:
            found = session.run(["probabilities"], batch.tensors())[0]
        except RUN_ERRORS as error:
            raise self._broken(error) from error
        return self._checked(found, batch.rows)

    def _broken(self, error: Exception) -> ServingError:
        return ServingError(f"{self.model} {self.version} could not answer: {str(error).splitlines()[0]}")

    def _checked(self, found: np.ndarray, rows: int) -> np.ndarray:
        wanted = (rows, len(self.schema.classes))
        if found.shape != wanted or not _all_finite(found):
            raise ServingError(
                f"{self.model} {self.version} answered with shape {found.shape} or infinite values; right is {wanted}, all finite"
            )
        return found


def _all_finite(found: np.ndarray) -> bool:
    flat = found.ravel()
    if flat.size <= _FEW_ROWS:
        return all(map(math.isfinite, flat.tolist()))
    finite = np.isfinite(flat)
    return bool(finite[finite.argmin()])  # half the time of all()


def load_bundle(path: Path, *, model: str, digest: str, opener: Opener | None, champion: Bundle | None = None) -> Bundle:
    """Verify every file, build, warm and check; with a champion its time is compared, too. Anything wrong is a ServingError."""
    bundle = build_bundle(read_files(path, model=model, digest=digest, opener=opener), path=path, model=model, digest=digest, opener=opener)
    if champion is not None:
        check_speed(bundle, champion)
    return bundle


def build_bundle(files: Mapping[str, bytes], *, path: Path, model: str, digest: str, opener: Opener | None = None) -> Bundle:
    """Build a session from verified files, warm it and hold it against the recorded answers."""
    try:
        schema = read_record(FeatureSchema, files[SCHEMA_FILE])
        samples = json.loads(files[SAMPLES_FILE])
        typical = json.loads(files[TYPICAL_ROW_FILE]) if TYPICAL_ROW_FILE in files else None
    except ValueError as error:
        raise ServingError(f"release {digest[:VERSION_DIGITS]} of {model}: {path}: {error}") from error
    try:
        session = ort.InferenceSession(files[MODEL_FILE], sess_options=_options(), providers=["CPUExecutionProvider"])
    except RUN_ERRORS as error:
        raise ServingError(f"release {digest[:VERSION_DIGITS]} of {model}: onnxruntime refuses {path / MODEL_FILE}: {error}") from error
    reader, size = RowReader(schema, model=model), len(files[MODEL_FILE])
    bundle = Bundle(
        model=model, digest=digest, path=path, schema=schema, reader=reader, session=session, size_bytes=size, typical=typical,
        opener=opener,
    )  # fmt: skip
    _check_inputs(bundle)
    if reader.tensor_names == ("numeric",):
        bundle.bound = BoundRuns(session, width=reader.widths["numeric"], classes=len(schema.classes))
    batch, recorded = _read_samples(bundle, samples)
    _check_answers(bundle, batch, recorded)
    return replace(bundle, sample=batch.slice(0, 1))


def check_speed(bundle: Bundle, champion: Bundle) -> None:
    """Refuse a release that answers its recorded rows many times slower than the champion does; callers would wait behind it."""
    ours, theirs = _row_seconds(bundle), _row_seconds(champion)
    if ours > _SLOW_SECONDS and ours > _SLOW_TIMES * theirs:
        raise ServingError(
            f"release {bundle.version} of {bundle.model} was refused: a row takes it {1000 * ours:.1f} ms, the champion {champion.version} "
            f"{1000 * theirs:.1f} ms; beyond {1000 * _SLOW_SECONDS:g} ms at most {_SLOW_TIMES:g} times is allowed; nothing was changed"
        )


def _row_seconds(bundle: Bundle) -> float:
    """Least time of a one-row run: what else the machine does only adds to it."""
    assert bundle.sample is not None
    found: list[float] = []
    for _ in range(_SPEED_RUNS):
        began = perf_counter()
        bundle.predict(bundle.sample)
        found.append(perf_counter() - began)
        if sum(found) > _SPEED_SECONDS:
            break
    return min(found)


def _options() -> Any:
    # Default threads with spinning cost 14 times the CPU of one thread without, on a small MLP at 10 ms gaps.
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def read_files(path: Path, *, model: str, digest: str, opener: Opener | None) -> Mapping[str, bytes]:
    """Open a release that is signed and whole, of this digest and this model."""
    if opener is None:
        raise ServingError(f"release {digest[:VERSION_DIGITS]} was refused: the server has no keys to verify it with; start it with --keys")
    try:
        release = opener.open(path, digest=digest)
    except ReleaseError as error:
        raise ServingError(f"{error}; nothing was changed") from error
    files = release.files
    needed = (MODEL_FILE, SCHEMA_FILE, SAMPLES_FILE)
    if missing := [name for name in needed if name not in files]:
        raise ServingError(f"{path / MANIFEST_FILE} does not list {', '.join(missing)}; a release needs {', '.join(needed)}")
    if release.manifest["model"] != model:
        raise ServingError(f"{path} is a release of {release.manifest['model']}, {model} was asked for")
    return files


def _check_inputs(bundle: Bundle) -> None:
    wanted = set(bundle.reader.tensor_names)
    found = {entry.name for entry in bundle.session.get_inputs()}
    outputs = {entry.name for entry in bundle.session.get_outputs()}
    if wanted != found or "probabilities" not in outputs:
        raise ServingError(
            f"release {bundle.version} of {bundle.model}: the graph has inputs {sorted(found)} and outputs {sorted(outputs)}; "
            f"its schema asks for inputs {sorted(wanted)} and an output 'probabilities'"
        )


def _read_samples(bundle: Bundle, samples: Any) -> tuple[Encoded, np.ndarray]:
    try:
        rows, recorded = samples["rows"], np.asarray(samples["probabilities"], dtype=np.float32)
        batch = bundle.reader.encode(rows)
    except (RequestError, KeyError, TypeError, ValueError) as error:
        raise ServingError(f"release {bundle.version} of {bundle.model}: {SAMPLES_FILE} does not fit its schema: {error}") from error
    if not rows or recorded.shape != (len(rows), len(bundle.schema.classes)):
        raise ServingError(
            f"release {bundle.version} of {bundle.model}: {SAMPLES_FILE} has answers of shape {recorded.shape} for {len(rows)} rows and "
            f"{len(bundle.schema.classes)} classes; it needs at least one row"
        )
    return batch, recorded


def _check_answers(bundle: Bundle, batch: Encoded, recorded: np.ndarray) -> None:
    """Warm the session row by row and as one batch; both must give the recorded answers."""
    singles = np.concatenate([bundle.answer(_packed(batch.slice(at, at + 1))) for at in range(min(batch.rows, 16))])
    worst = max(float(np.abs(bundle.predict(batch) - recorded).max()), float(np.abs(singles - recorded[: len(singles)]).max()))
    if not worst <= TOLERANCE:
        raise ServingError(
            f"release {bundle.version} of {bundle.model} was refused: its answers differ from the recorded ones by {worst:.2g}, "
            f"at most {TOLERANCE:g} is allowed; nothing was changed"
        )


def _packed(batch: Encoded) -> Encoded:
    """As most requests come, so that their way is checked too."""
    return replace(batch, numbers=batch.numeric.tobytes()) if batch.numeric is not None else batch
