"""Requests that ask for reasons: answered and logged like any other, then explained in a thread of their own. The method is reasons.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.batching import BusyError
from platform_assets.stages.serving.columns import rows_of_request
from platform_assets.stages.serving.reasons import MAX_EXPLAINED_ROWS, as_reply, explain, name_columns

if TYPE_CHECKING:
    from platform_assets.stages.serving.columns import Encoded
    from platform_assets.stages.serving.predicting import Caller, Predictor
    from platform_assets.stages.serving.traffic import Arm, Route

REASONS = "reasons"

RowsOf = Callable[["Arm"], tuple["Encoded", list[dict[str, Any]]]]  # rows as an arm takes them, encoded and named
Add = Callable[[dict[str, Any], list[dict[str, Any]]], None]  # puts reasons of each row into a parsed reply
_MOST_WAITING = 8  # requests; sixteen rows of one cost up to 8,192 masked rows


def wants_reasons(body: dict[str, Any]) -> bool:
    """Tell whether a parsed `:predict` body with the field asks for reasons; anything but true or false is a RequestError."""
    if type(body[REASONS]) is not bool:
        raise RequestError(f"field {REASONS!r}: found {body[REASONS]!r}; right would be true or false")
    return bool(body[REASONS])


def without_reasons(body: dict[str, Any]) -> dict[str, Any]:
    """Return a parsed body as it would be without the field."""
    return {name: value for name, value in body.items() if name != REASONS}


class Explainer:
    """Adds reasons to replies. One thread: it competes with answering for the same cores, and nobody waits for it who did not ask."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reasons")
        self._waiting = 0

    def explain_rows(self, caller: Caller, route: Route, *, body: Any, timeout: float) -> None:
        """Answer the rows of a `:predict` body without the field, and say why.

        RequestError: it cannot be explained; BusyError: too many wait.
        """
        rows = rows_of_request(body)

        def rows_of(arm: Arm) -> tuple[Encoded, list[dict[str, Any]]]:
            used = self._predictor.rows_for(arm, rows, champion=route.champion())
            return arm.bundle.reader.encode(used), used

        ask = partial(self._predictor.named, rows=rows, body=b"", timeout=timeout)
        self._explain(_Explained(self, caller, route, rows_of, _add_to_rows), len(rows), ask)

    def explain_tensors(self, caller: Caller, route: Route, *, arm: Arm, batch: Encoded, ask: Callable[[Caller, Route], None]) -> None:
        """The same of tensors read for an arm; `ask` predicts them."""

        def rows_of(answering: Arm) -> tuple[Encoded, list[dict[str, Any]]]:
            rows = arm.bundle.reader.decode(batch)
            same = answering.bundle.schema == arm.bundle.schema
            return batch if same else answering.bundle.reader.encode(rows), rows

        self._explain(_Explained(self, caller, route, rows_of, _add_to_tensors), batch.rows, ask)

    def _explain(self, explained: _Explained, rows: int, ask: Callable[[Caller, Route], None]) -> None:
        if rows > MAX_EXPLAINED_ROWS:
            raise RequestError(f"field {REASONS!r}: the request holds {rows} rows; at most {MAX_EXPLAINED_ROWS} are explained at once")
        name_columns(explained.route.champion().bundle.schema)
        if self._waiting >= _MOST_WAITING:
            raise BusyError(f"{self._waiting} requests wait to be explained, {_MOST_WAITING} is the bound; try again in a second")
        self._waiting += 1
        try:
            ask(explained, explained.route)
        except ServingError:
            self._waiting -= 1
            raise

    def start(self, explained: _Explained, reply: dict[str, Any]) -> None:
        """Explain an answer off the loop; the online store is read on it, since its connection is for one thread at a time."""
        try:
            arm = explained.route.of_version(reply.get("version") or reply["model_version"])
            if arm.bundle.typical is None:
                raise RequestError(f"release {arm.bundle.version} carries no typical row to explain against; make the release again")
            batch, rows = explained.rows_of(arm)
        except ServingError as error:
            explained.decline(error)
            return
        task = asyncio.get_running_loop().run_in_executor(self._pool, _add_reasons, explained, arm, batch, rows, reply)
        task.add_done_callback(lambda done: self._finish(explained, done))

    def ended(self) -> None:
        """Count a request that needs no explanation any more."""
        self._waiting -= 1

    def _finish(self, explained: _Explained, done: asyncio.Future[bytes]) -> None:
        self._waiting -= 1
        error = done.exception()
        if error is None:
            explained.caller.answer(done.result(), b"")
        else:
            explained.caller.decline(error if isinstance(error, ServingError) else ServingError(f"the reasons could not be found: {error}"))


def _add_reasons(explained: _Explained, arm: Arm, batch: Encoded, rows: list[dict[str, Any]], reply: dict[str, Any]) -> bytes:
    bundle = arm.bundle
    assert bundle.typical is not None
    reference, found = bundle.reader.encode([bundle.typical]), []
    labels = bundle.labels(answers := bundle.predict(batch), answers.tolist())
    for at, label in enumerate(labels):
        reasons = explain(bundle.predict, batch.slice(at, at + 1), reference, schema=bundle.schema)
        found.append(as_reply(reasons, label=label, given=rows[at], typical=bundle.typical))
    explained.add(reply, found)
    return orjson.dumps(reply)


def _add_to_rows(reply: dict[str, Any], found: list[dict[str, Any]]) -> None:
    for prediction, reasons in zip(reply["predictions"], found, strict=True):
        prediction[REASONS] = reasons


def _add_to_tensors(reply: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """A tensor of texts, each the JSON of one row's reasons: the protocol knows no nested values."""
    texts = [orjson.dumps(reasons).decode() for reasons in found]
    reply["outputs"].append({"name": REASONS, "datatype": "BYTES", "shape": [len(texts)], "data": texts})


class _Explained:
    """Stands between a prediction and who asked for it."""

    alone = False

    def __init__(self, explainer: Explainer, caller: Caller, route: Route, rows_of: RowsOf, add: Add) -> None:
        self._explainer, self.caller, self.route, self.rows_of, self.add = explainer, caller, route, rows_of, add
        self.started, self.traceparent = caller.started, caller.traceparent
        self.answered = False

    def answer(self, body: bytes, extra: bytes) -> None:
        """Take the answer and have it explained."""
        del extra  # of binary tensors alone
        self.answered = True
        self._explainer.start(self, orjson.loads(body))

    def decline(self, error: ServingError) -> None:
        """Take a refusal."""
        self.answered = True
        self._explainer.ended()
        self.caller.decline(error)
