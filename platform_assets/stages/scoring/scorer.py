"""A release as a batch is scored by it: the graph cut in two, a session, and threads that each take a batch from columns to answers."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import ReleaseError
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.scoring.arrow import as_arrow, as_texts
from platform_assets.stages.scoring.inputs import ColumnReader
from platform_assets.stages.scoring.look_up import cut_look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from platform_assets.manifests import ReleaseFiles

BATCH_ROWS = 32_768  # taken from columns to answers at once: fewer cost more Python, more hold more memory
_RUN_ROWS = 4096  # of one run: 64 numbers a row are one megabyte, which stays in the cache between columns and graph
_WIDE_RUN_ROWS = 512  # where a graph reads texts or images: attention takes half a megabyte a row
LABEL, PROBABILITY = "label", "probability"


class Scorer:
    """One release; `threads` batches are under way at once."""

    def __init__(self, bundle: ReleaseFiles, *, threads: int) -> None:
        self.model, self.version = str(bundle.manifest["model"]), bundle.version
        self.schema, graph = read_record(FeatureSchema, bundle["schema.json"]), bundle["model.onnx"]
        self._threads = threads
        self._cut = cut_look_up(graph)
        self._session = _open(self._cut.rest if self._cut else graph, name=self.version)
        self._look_up = _open(self._cut.look_up, name=self.version) if self._cut else None
        self._mine = local()
        wide = self.schema.of_kind("image", "text")
        self._run_rows = _WIDE_RUN_ROWS if wide else _RUN_ROWS

    def answer(
        self, batches: Iterable[pa.RecordBatch], *, prepare: Callable[[pa.RecordBatch], pa.RecordBatch]
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield each batch as `prepare` gives it, with its probabilities, float32 [rows, classes], in order; a few are held at a time.

        A prepared batch has every feature of the schema as a column, of a type that `inputs` reads; it is prepared beside others.
        """

        def work(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
            prepared = prepare(batch)
            return prepared, self.score(prepared)

        with ThreadPoolExecutor(self._threads, thread_name_prefix="scoring") as pool:
            under_way: deque[Future[tuple[pa.RecordBatch, np.ndarray]]] = deque()
            try:
                for batch in batches:
                    under_way.append(pool.submit(work, batch))
                    if len(under_way) > 2 * self._threads:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def score(self, batch: pa.RecordBatch) -> np.ndarray:
        """Probabilities of one batch, float32 [rows, classes]."""
        reader = getattr(self._mine, "reader", None)
        if reader is None:
            reader = self._mine.reader = self._reader()
        parts = [self._run(arrays) for arrays in reader.read(batch, most=self._run_rows)]
        found: np.ndarray = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise ReleaseError(f"{self.model} {self.version} gives no finite answer to row {row} of a batch; use another release")
        return found

    def _run(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

        try:
            found: np.ndarray = self._session.run(["probabilities"], arrays)[0]
        except (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException) as error:
            raise ReleaseError(f"{self.model} {self.version} could not answer: {str(error).splitlines()[0]}") from error
        return found

    def _reader(self) -> ColumnReader:
        session = self._look_up
        if session is None or self._cut is None:
            return ColumnReader(self.schema, look_up=None)

        def look_up(columns: list[list[str]]) -> np.ndarray:
            found: np.ndarray = session.run(None, {"categorical": np.array(columns, dtype=object).T})[0]
            return found

        return ColumnReader(self.schema, look_up=look_up, tensor=self._cut.tensor)


def answers_as_columns(probabilities: np.ndarray, *, classes: tuple[str, ...]) -> dict[str, Any]:
    """Label, its probability and the probability of every class, as Arrow arrays."""
    import pyarrow as pa

    best = probabilities.argmax(axis=1)
    labels = pa.DictionaryArray.from_arrays(as_arrow(best.astype(np.int32)), as_texts(classes))
    shares = {f"{PROBABILITY}_{name}": as_arrow(probabilities[:, place]) for place, name in enumerate(classes)}
    return {LABEL: labels, PROBABILITY: as_arrow(probabilities.max(axis=1)), **shares}


def _open(graph: bytes, *, name: str) -> Any:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # batches run side by side instead
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
    except (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.NotImplemented) as error:
        raise ReleaseError(f"onnxruntime refuses the graph of release {name}: {str(error).splitlines()[0]}") from error
