"""The way of one prediction: rows, arm, batch, reply, figures, log, shadow. Which path leads here is app.py's."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.batching import Batcher
from platform_assets.stages.serving.columns import Encoded, rows_of_request
from platform_assets.stages.serving.frames import NAMED, PACKED, Answered, Source
from platform_assets.stages.serving.lookup import Lookup
from platform_assets.stages.serving.prediction_log import PredictionLog
from platform_assets.stages.serving.shadow import Sample, Shadow
from platform_assets.stages.serving.traffic import Arm, Route

if TYPE_CHECKING:
    import numpy as np

DEADLINE_SECONDS = 10.0
_MAX_DEADLINE_SECONDS = 60.0

# Body and header lines of an answer to a request of this id by this arm: its probabilities as an array and as lists.
Write = Callable[["Arm", str, "np.ndarray", list[list[float]]], tuple[bytes, bytes]]


class Caller(Protocol):
    """Who asked, by whichever protocol; `started` on the clock of perf_counter."""

    started: float
    alone: bool  # whether nobody else asks at present

    @property
    def answered(self) -> bool:
        """Whether it has an answer or a refusal."""

    @property
    def traceparent(self) -> str | None:
        """Where the request belongs in a trace, as its caller says."""

    def answer(self, body: bytes, extra: bytes) -> None:
        """Take an answer: what a Write made."""

    def decline(self, error: ServingError) -> None:
        """Take a refusal."""


class Ask:
    """One prediction under way: a job of the batcher that knows who asked, and what the log keeps of it."""

    __slots__ = ("alone", "arm", "batch", "caller", "deadline", "kind", "predictor", "request_id", "route", "rows", "source", "write")

    def __init__(  # noqa: PLR0917 - once a request, and keywords would cost more than the rest of it
        self, predictor: Predictor, caller: Caller, route: Route, arm: Arm, batch: Encoded, kind: int, source: Source, write: Write,
        request_id: str, deadline: float,
    ) -> None:  # fmt: skip
        self.predictor, self.caller, self.route, self.arm = predictor, caller, route, arm
        self.batch, self.rows, self.kind, self.source = batch, batch.rows, kind, source
        self.write, self.request_id, self.deadline, self.alone = write, request_id, deadline, caller.alone

    def named_rows(self) -> Sequence[dict[str, Any]]:
        """Rows of named columns, made anew."""
        if type(self.source) is not bytes:
            return self.source()  # type: ignore[operator]
        return self.arm.bundle.reader.decode(self.batch) if self.kind == PACKED else rows_of_request(orjson.loads(self.source))

    def fail(self, error: ServingError) -> None:
        """Take a refusal."""
        self.predictor.fail(self, error)

    def give_up(self, error: ServingError) -> None:
        """Take a refusal unless the answer was given."""
        if self.caller is not None and not self.caller.answered:
            self.caller.decline(error)


class Predictor:
    """Answers predictions, whichever protocol they came by."""

    def __init__(self, *, batcher: Batcher, log: PredictionLog, lookup: Lookup, shadow: Shadow) -> None:
        self._batcher, self._log, self._lookup, self._shadow = batcher, log, lookup, shadow
        batcher.deliver = self.deliver  # type: ignore[assignment]  # every job is an Ask
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()

    def new_id(self) -> str:
        """Id of a request, unique over restarts."""
        return f"{self._prefix}{next(self._numbers):08x}"

    def named(
        self, caller: Caller, route: Route, *, rows: list[dict[str, Any]], body: bytes, timeout: float, write: Write | None = None
    ) -> None:  # fmt: skip
        """Predict rows of named columns. `body` is their JSON as it came; where it is empty the log keeps the rows."""
        request_id = self.new_id()
        champion = route.champion()
        first = rows[0]
        key = first.get(champion.bundle.schema.key) if type(first) is dict else None
        arm = route.choose(request_id if key is None else str(key))
        batch, used = self._encode(rows, arm=arm, champion=champion)
        source: Source = body if used is rows and body else lambda: used
        ask = Ask(self, caller, route, arm, batch, NAMED, source, write or write_named, request_id, monotonic() + timeout)
        self._batcher.submit(ask, arm=arm)

    def tensors(
        self, caller: Caller, route: Route, *, arm: Arm, request_id: str, batch: Encoded, write: Write, timeout: float
    ) -> None:  # fmt: skip
        """Predict encoded rows."""
        source: Source
        if type(batch.numbers) is bytes and batch.categorical is None and batch.image is None and batch.text is None:
            kind, source = PACKED, batch.numbers
        else:
            kind, source = NAMED, lambda: arm.bundle.reader.decode(batch)
        ask = Ask(self, caller, route, arm, batch, kind, source, write, request_id, monotonic() + timeout)
        self._batcher.submit(ask, arm=arm)

    def _encode(self, rows: list[dict[str, Any]], *, arm: Arm, champion: Arm) -> tuple[Encoded, list[dict[str, Any]]]:
        """Return the batch and the rows it was made of."""
        used = self.rows_for(arm, rows, champion=champion)
        return arm.bundle.reader.encode(used), used

    def rows_for(self, arm: Arm, rows: list[dict[str, Any]], *, champion: Arm) -> list[dict[str, Any]]:
        """Return rows as an arm takes them: those given where nothing is taken away or looked up."""
        schema, reader = arm.bundle.schema, arm.bundle.reader
        used = rows
        if arm is not champion and schema != champion.bundle.schema and all(type(row) is dict for row in rows):
            used = reader.restrict(rows, to_known_beside=champion.bundle.reader)
        if self._lookup.lacks(used, schema=schema):
            used = [dict(row) if type(row) is dict else row for row in used]
            self._lookup.fill(used, schema=schema)
        return used

    def deliver(self, arm: Arm, jobs: list[Ask], batch: Encoded, found: np.ndarray) -> None:
        """Reply to all requests of a run, then count, log and compare them together."""
        shares = found.tolist()
        bundle, answered = arm.bundle, arm.figures.answered
        if len(jobs) == 1:
            ask = jobs[0]
            ask.caller.answer(*ask.write(arm, ask.request_id, found, shares))
        else:
            start = 0
            for ask in jobs:
                stop = start + ask.rows
                ask.caller.answer(*ask.write(arm, ask.request_id, found[start:stop], shares[start:stop]))
                start = stop
        now = perf_counter()
        for ask in jobs:
            answered(ask.rows, now - ask.caller.started)
            ask.caller = None  # type: ignore[assignment]  # answered: what waits for the log keeps no bodies
        self._log.add(Answered(bundle.model, bundle.version, bundle.digest, bundle.schema, time.time(), jobs, found, batch.rows))
        if jobs[0].route.challenger is not None:
            self._offer(arm, jobs, found)

    def _offer(self, arm: Arm, jobs: list[Ask], found: np.ndarray) -> None:
        route, start = jobs[0].route, 0
        challenger = route.shadow()
        if challenger is None or route.live is not arm:
            return
        for ask in jobs:
            stop = start + ask.rows
            self._shadow.offer(Sample(arm, challenger, route.comparison, ask.batch, ask.named_rows, found[start:stop]))
            start = stop

    def fail(self, ask: Ask, error: ServingError) -> None:
        """A challenger's failure is counted and the champion answers; a champion's is told."""
        if not isinstance(error, RequestError):
            ask.arm.figures.failed()
        champion = ask.route.live
        if champion is None or champion is ask.arm:
            ask.caller.decline(error)
            return
        try:
            batch, rows = self._encode(list(ask.named_rows()), arm=champion, champion=ask.arm)
            again = Ask(self, ask.caller, ask.route, champion, batch, NAMED, lambda: rows, ask.write, ask.request_id, ask.deadline)
            self._batcher.submit(again, arm=champion)
        except ServingError as second:
            ask.caller.decline(second)


def write_named(arm: Arm, request_id: str, found: np.ndarray, shares: list[list[float]]) -> tuple[bytes, bytes]:
    """Reply of `:predict`."""
    del found
    bundle = arm.bundle
    classes = bundle.schema.classes
    predictions = []
    for row in shares:
        highest = max(row)
        predictions.append(
            {"label": classes[row.index(highest)], "probability": highest, "probabilities": dict(zip(classes, row, strict=True))}
        )
    return orjson.dumps({"model": bundle.model, "version": bundle.version, "request_id": request_id, "predictions": predictions}), b""


def read_timeout(header: bytes | None, parameter: Any = None) -> float:
    """Seconds that a request may take: milliseconds of the header `x-timeout-ms`, or microseconds of the V2 parameter `timeout`."""
    if header is None and parameter is None:
        return DEADLINE_SECONDS
    if header is not None:
        if not header.isdigit() or not 0 < int(header[:12]) <= _MAX_DEADLINE_SECONDS * 1000:
            raise RequestError(
                f"header 'x-timeout-ms': right would be a whole number of milliseconds, 1 to {_MAX_DEADLINE_SECONDS * 1000:g}"
            )
        return int(header) / 1000
    if type(parameter) is not int or not 0 < parameter <= _MAX_DEADLINE_SECONDS * 1e6:
        raise RequestError(f"parameter 'timeout': right would be a whole number of microseconds, 1 to {_MAX_DEADLINE_SECONDS * 1e6:g}")
    return parameter / 1e6
