"""Routes of the server and the way of one request: right, rows, arm, batch, reply, log, shadow. HTTP itself is http.py."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving import pages, v2
from platform_assets.stages.serving.access import ADMIN, PREDICT, Gate
from platform_assets.stages.serving.batching import Batcher, Job
from platform_assets.stages.serving.columns import Encoded, rows_of_request
from platform_assets.stages.serving.lookup import Lookup
from platform_assets.stages.serving.prediction_log import Answered, PredictionLog
from platform_assets.stages.serving.replies import MethodError, NotFoundError, read_json, refuse
from platform_assets.stages.serving.shadow import Sample, Shadow
from platform_assets.stages.serving.traffic import Arm, Route

if TYPE_CHECKING:
    import numpy as np

    from platform_assets.stages.serving.admin import Admin
    from platform_assets.stages.serving.http import Exchange

DEADLINE_SECONDS = 10.0
SERVER_VERSION = "0.1.0"
_PREDICT = re.compile(r"^/v1/models/([a-z][a-z0-9_]{0,62}):predict$")
_V2 = re.compile(r"^/v2/models/([a-z][a-z0-9_]{0,62})(?:/versions/([0-9a-f]{1,64}))?(?:/(ready|infer))?$")
_ADMIN = re.compile(r"^/admin/models/([a-z][a-z0-9_]{0,62})(?:/(load|traffic|rotate))?$")


@dataclass(frozen=True, eq=False)
class Ask:
    """One prediction under way."""

    exchange: Exchange
    request_id: str
    route: Route
    arm: Arm
    batch: Encoded
    rows: Callable[[], Sequence[dict[str, Any]]]
    write: Callable[[np.ndarray, Arm, str], bytes]


class App:
    """Everything a request can reach."""

    def __init__(self, *, gate: Gate, batcher: Batcher, log: PredictionLog, lookup: Lookup, shadow: Shadow) -> None:
        self.routes: dict[str, Route] = {}
        self.log = log
        self.ready = False
        self.replies: dict[int, int] = {}
        self.count_connections: Callable[[], int] = lambda: 0
        self.admin: Admin | None = None
        self._gate, self._batcher, self._lookup, self._shadow = gate, batcher, lookup, shadow
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._started = monotonic()
        self._pages: dict[str, Callable[[Exchange], None]] = {
            "/": self._status_page,
            "/status": self._status,
            "/metrics": self._metrics,
            "/v2": self._v2_server,
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later; every refusal is one sentence."""
        try:
            self._route(exchange)
        except ServingError as error:
            refuse(exchange, error)

    def _route(self, exchange: Exchange) -> None:
        path = exchange.path.decode("latin-1").partition("?")[0]
        if match := _PREDICT.match(path):
            _need(exchange, b"POST")
            self._predict(exchange, match[1])
        elif path in ("/v2/health/live", "/v2/health/ready"):
            _need(exchange, b"GET")
            good = path.endswith("live") or self.ready
            _send(exchange, {path.rpartition("/")[2]: good}, status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)
        elif match := _V2.match(path):
            self._v2_model(exchange, match[1], match[2], match[3] or "")
        elif match := _ADMIN.match(path):
            self._admit(exchange, ADMIN)
            assert self.admin is not None
            _need(exchange, b"POST" if match[2] else b"GET")
            self.admin.handle(exchange, model=match[1], verb=match[2] or "")
        elif path in self._pages:
            _need(exchange, b"GET")
            self._admit(exchange, PREDICT, ADMIN)
            self._pages[path](exchange)
        else:
            raise NotFoundError(f"there is nothing at {path[:80]!r}; models answer at /v1/models/NAME:predict")

    def _admit(self, exchange: Exchange, *any_of: str) -> None:
        self._gate.admit(exchange.head.get(b"authorization"), loopback=exchange.loopback, any_of=any_of)

    def _known(self, model: str) -> Route:
        route = self.routes.get(model)
        if route is None:
            raise NotFoundError(f"there is no model {model!r} here; known are {', '.join(sorted(self.routes)) or 'none yet'}")
        return route

    # predictions
    def _predict(self, exchange: Exchange, model: str) -> None:
        self._admit(exchange, PREDICT, f"{PREDICT}:{model}")
        route = self._known(model)
        rows = rows_of_request(read_json(exchange))
        request_id = self._new_id()
        champion = route.champion()
        first = rows[0]
        key = first.get(champion.bundle.schema.key) if type(first) is dict else None
        arm = route.choose(request_id if key is None else str(key))
        batch, rows = self._encode(rows, arm=arm, champion=champion)
        self._submit(Ask(exchange, request_id, route, arm, batch, lambda: rows, _predict_reply))

    def _encode(self, rows: list[dict[str, Any]], *, arm: Arm, champion: Arm) -> tuple[Encoded, list[dict[str, Any]]]:
        schema, reader = arm.bundle.schema, arm.bundle.reader
        if arm is not champion and schema != champion.bundle.schema and all(type(row) is dict for row in rows):
            rows = reader.restrict(rows, to_known_beside=champion.bundle.reader)
        self._lookup.fill(rows, schema=schema)
        return reader.encode(rows), rows

    def _submit(self, ask: Ask) -> None:
        job = Job(
            batch=ask.batch,
            deadline=monotonic() + DEADLINE_SECONDS,
            done=lambda probabilities: self._answer(ask, probabilities),
            failed=lambda error: self._fail(ask, error),
        )
        self._batcher.submit(job, arm=ask.arm)

    def _answer(self, ask: Ask, probabilities: np.ndarray) -> None:
        arm, bundle, exchange = ask.arm, ask.arm.bundle, ask.exchange
        exchange.respond(HTTPStatus.OK, ask.write(probabilities, arm, ask.request_id))
        arm.figures.answered(rows=ask.batch.rows, seconds=perf_counter() - exchange.started)
        schema = bundle.schema
        self.log.add(
            Answered(
                bundle.model, bundle.version, bundle.digest, ask.request_id, time.time(), schema.key, schema.event_time, ask.rows,
                schema.classes, probabilities, ask.batch.rows,
            )
        )  # fmt: skip
        challenger = ask.route.shadow()
        if challenger is not None and ask.route.live is arm:
            self._shadow.offer(Sample(arm, challenger, ask.route.comparison, ask.batch, ask.rows, probabilities))

    def _fail(self, ask: Ask, error: ServingError) -> None:
        """A challenger's failure is counted and the champion answers; a champion's is told."""
        if not isinstance(error, RequestError):
            ask.arm.figures.failed()
        champion = ask.route.live
        if champion is None or champion is ask.arm:
            refuse(ask.exchange, error)
            return
        try:
            batch, rows = self._encode(list(ask.rows()), arm=champion, champion=ask.arm)
            self._submit(replace(ask, arm=champion, batch=batch, rows=lambda: rows))
        except ServingError as second:
            refuse(ask.exchange, second)

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"

    # protocol V2
    def _v2_server(self, exchange: Exchange) -> None:
        _send(exchange, {"name": "falaj", "version": SERVER_VERSION, "extensions": []})

    def _v2_model(self, exchange: Exchange, model: str, version: str | None, verb: str) -> None:
        _need(exchange, b"POST" if verb == "infer" else b"GET")
        self._admit(exchange, PREDICT, f"{PREDICT}:{model}")
        route = self._known(model)
        if verb == "ready":
            ready = route.live is not None if version is None else any(arm.bundle.version == version for arm in _arms(route))
            _send(exchange, {"name": model, "ready": ready}, status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
            return
        request_id = self._new_id()
        arm = route.choose(request_id) if verb == "infer" and version is None else _of_version(route, version)
        if verb != "infer":
            _send(exchange, v2.metadata(arm.bundle))
            return
        body = read_json(exchange)
        batch, outputs, asked = v2.read_infer(body, bundle=arm.bundle)

        def write(probabilities: np.ndarray, arm: Arm, request_id: str) -> bytes:
            return orjson.dumps(v2.reply(probabilities, bundle=arm.bundle, outputs=outputs, asked=asked, request_id=request_id))

        reader = arm.bundle.reader
        self._submit(Ask(exchange, request_id, route, arm, batch, lambda: reader.decode(batch), write))

    # for people and Prometheus
    def _server_facts(self) -> dict[str, Any]:
        return {
            "uptime_seconds": monotonic() - self._started,
            "ready": self.ready,
            "connections": self.count_connections(),
            "waiting_rows": self._batcher.waiting_rows,
            "log_waiting_rows": self.log.waiting_rows,
            "log_dropped_rows": self.log.dropped_rows,
            "log_write_errors": self.log.write_errors,
            "online_missed_rows": self._lookup.missed_rows,
            "online_read_errors": self._lookup.read_errors,
        }

    def _status(self, exchange: Exchange) -> None:
        _send(exchange, {"server": self._server_facts(), "models": {name: route.status() for name, route in self.routes.items()}})

    def _status_page(self, exchange: Exchange) -> None:
        page = pages.status_page(self.routes.values(), self._server_facts())
        exchange.respond(HTTPStatus.OK, page.encode(), kind=b"text/html; charset=utf-8", extra=b"x-content-type-options: nosniff\r\n")

    def _metrics(self, exchange: Exchange) -> None:
        text = pages.metrics(self.routes.values(), self._server_facts(), self.replies)
        exchange.respond(HTTPStatus.OK, text.encode(), kind=b"text/plain; version=0.0.4; charset=utf-8")


def _send(exchange: Exchange, value: Any, *, status: int = HTTPStatus.OK) -> None:
    exchange.respond(status, orjson.dumps(value))


def _need(exchange: Exchange, method: bytes) -> None:
    if exchange.method != method and not (method == b"GET" and exchange.method == b"HEAD"):
        raise MethodError(method.decode())


def _arms(route: Route) -> list[Arm]:
    return [arm for arm in (route.live, route.challenger) if arm is not None]


def _of_version(route: Route, version: str | None) -> Arm:
    if version is None:
        return route.champion()
    for arm in _arms(route):
        if arm.bundle.version == version:
            return arm
    served = ", ".join(arm.bundle.version for arm in _arms(route))
    raise NotFoundError(f"version {version} of {route.model} is not in service; in service are {served or 'none'}")


def _predict_reply(probabilities: np.ndarray, arm: Arm, request_id: str) -> bytes:
    bundle = arm.bundle
    classes = bundle.schema.classes
    predictions = []
    for shares in probabilities.tolist():
        highest = max(shares)
        predictions.append(
            {"label": classes[shares.index(highest)], "probability": highest, "probabilities": dict(zip(classes, shares, strict=True))}
        )
    return orjson.dumps({"model": bundle.model, "version": bundle.version, "request_id": request_id, "predictions": predictions})
