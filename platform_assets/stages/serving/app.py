"""Routes of the server: which path is answered by what, and who may ask. The way of a prediction is predicting.py, HTTP itself http.py."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson

from platform_assets.errors import ServingError
from platform_assets.stages.serving import arrow, openapi, v2
from platform_assets.stages.serving.access import ADMIN, METRICS, PREDICT, Gate
from platform_assets.stages.serving.batching import Batcher
from platform_assets.stages.serving.columns import rows_of_request
from platform_assets.stages.serving.explaining import REASONS, Explainer, wants_reasons, without_reasons
from platform_assets.stages.serving.fleet import process_facts
from platform_assets.stages.serving.lookup import Lookup
from platform_assets.stages.serving.memory import Memory
from platform_assets.stages.serving.predicting import Predictor, read_timeout, write_named
from platform_assets.stages.serving.prediction_log import PredictionLog
from platform_assets.stages.serving.replies import SERVER_VERSION, MethodError, NotFoundError, Unforeseen, read_json, refuse
from platform_assets.stages.serving.shadow import Shadow
from platform_assets.stages.serving.traffic import Route

if TYPE_CHECKING:
    from platform_assets.stages.serving.admin import AdminRoutes
    from platform_assets.stages.serving.exchange import Exchange

_PAGES = {"/": "page", "/status": "status", "/metrics": "metrics", "/v2": "", "/openapi.json": ""}
_PREDICT = re.compile(r"^/v1/models/([a-z][a-z0-9_]{0,62}):predict$")
_V2 = re.compile(r"^/v2/models/([a-z][a-z0-9_]{0,62})(?:/versions/([0-9a-f]{1,64}))?(?:/(ready|infer))?$")
_ADMIN = re.compile(r"^/admin/models/([a-z][a-z0-9_]{0,62})(?:/(load|traffic|rotate))?$")


class App:
    """Everything a request can reach."""

    def __init__(
        self, *, gate: Gate, batcher: Batcher, log: PredictionLog, lookup: Lookup, shadow: Shadow, memory: Memory, unforeseen: Unforeseen
    ) -> None:  # fmt: skip
        self.predictor = Predictor(batcher=batcher, log=log, lookup=lookup, shadow=shadow)
        self.explainer = Explainer(self.predictor)
        self.routes: dict[str, Route] = {}
        self.log = log
        self.ready = False
        self.replies: dict[int, int] = {}
        self.count_connections: Callable[[], int] = lambda: 0
        self.admin: AdminRoutes | None = None
        self.memory, self.unforeseen = memory, unforeseen
        self.gate, self._batcher, self._lookup = gate, batcher, lookup
        self._started = monotonic()

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later; every refusal is one sentence."""
        try:
            (exchange.head.target or self._route)(exchange)
        except ServingError as error:
            refuse(exchange, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told and the connection goes on
            fault = self.unforeseen.note(error)
            if not exchange.answered:
                refuse(exchange, fault)

    def _route(self, exchange: Exchange) -> None:
        head = exchange.head
        head.target = self._target(head.path.decode("latin-1").partition("?")[0], head.method)
        head.target(exchange)

    def _target(self, path: str, method: bytes) -> Callable[[Exchange], None]:
        """What answers a path; NotFoundError where nothing does, MethodError where another method is right."""
        if match := _PREDICT.match(path):
            _need(method, b"POST")
            return partial(self._predict, match[1], (PREDICT, f"{PREDICT}:{match[1]}"))
        if path in ("/v2/health/live", "/v2/health/ready"):
            _need(method, b"GET")
            return partial(self._health, path.rpartition("/")[2])
        if match := _V2.match(path):
            _need(method, b"POST" if match[3] == "infer" else b"GET")
            if match[3] == "infer":
                return partial(self._infer, match[1], match[2], (PREDICT, f"{PREDICT}:{match[1]}"))
            return partial(self._v2_model, match[1], match[2], match[3] or "")
        if match := _ADMIN.match(path):
            return partial(self._administer, match[1], match[2] or "")
        if path in _PAGES:
            _need(method, b"GET")
            own = {"/v2": self._v2_server, "/openapi.json": self._document}
            return own.get(path) or partial(self._page, _PAGES[path])
        raise NotFoundError(f"there is nothing at {path[:80]!r}; models answer at /v1/models/NAME:predict")

    def _health(self, what: str, exchange: Exchange) -> None:
        good = what == "live" or self.ready
        _send(exchange, {what: good}, status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)

    def _administer(self, model: str, verb: str, exchange: Exchange) -> None:
        self.gate.demand(exchange.service)
        self._admit(exchange, (ADMIN,))
        assert self.admin is not None
        _need(exchange.head.method, b"POST" if verb else b"GET")
        self.admin.handle(exchange, model=model, verb=verb)

    def _page(self, verb: str, exchange: Exchange) -> None:
        self._admit(exchange, (PREDICT, ADMIN, METRICS))
        assert self.admin is not None
        self.admin.handle(exchange, model="", verb=verb)

    def _document(self, exchange: Exchange) -> None:
        self._admit(exchange, (PREDICT, ADMIN))
        exchange.respond(HTTPStatus.OK, openapi.document())

    def _admit(self, exchange: Exchange, any_of: tuple[str, ...]) -> None:
        head = exchange.head
        if head.admitted_until < time.time():
            authorization = head.fields.get(b"authorization")
            loopback, service = authorization is None and exchange.loopback, exchange.service
            head.admitted_until = self.gate.admit(authorization, loopback=loopback, any_of=any_of, service=service)

    def known(self, model: str) -> Route:
        """Route of a model; NotFoundError where there is none."""
        route = self.routes.get(model)
        if route is None:
            raise NotFoundError(f"there is no model {model!r} here; known are {', '.join(sorted(self.routes)) or 'none yet'}")
        return route

    # predictions
    def _predict(self, model: str, any_of: tuple[str, ...], exchange: Exchange) -> None:
        self._admit(exchange, any_of)
        route = self.known(model)
        fields = exchange.head.fields
        timeout = read_timeout(fields.get(b"x-timeout-ms"))
        write = arrow.write_answers if arrow.wants_stream(fields.get(b"accept")) else write_named
        if fields.get(b"content-type") == arrow.STREAM:
            self.predictor.named(exchange, route, rows=arrow.read_stream(exchange.body), body=b"", timeout=timeout, write=write)
            return
        body = read_json(exchange)
        if type(body) is not dict or REASONS not in body:
            self.predictor.named(exchange, route, rows=rows_of_request(body), body=exchange.body, timeout=timeout, write=write)
        elif wants_reasons(body):
            self.explainer.explain_rows(exchange, route, body=without_reasons(body), timeout=timeout)
        else:
            self.predictor.named(exchange, route, rows=rows_of_request(without_reasons(body)), body=b"", timeout=timeout, write=write)

    # protocol V2
    def _v2_server(self, exchange: Exchange) -> None:
        self._admit(exchange, (PREDICT, ADMIN))
        _send(exchange, {"name": "falaj", "version": SERVER_VERSION, "extensions": v2.EXTENSIONS})

    def _v2_model(self, model: str, version: str | None, verb: str, exchange: Exchange) -> None:
        self._admit(exchange, (PREDICT, f"{PREDICT}:{model}"))
        route = self.known(model)
        if verb != "ready":
            _send(exchange, v2.metadata(route.of_version(version).bundle))
            return
        ready = route.is_ready(version)
        _send(exchange, {"name": model, "ready": ready}, status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def _infer(self, model: str, version: str | None, any_of: tuple[str, ...], exchange: Exchange) -> None:
        self._admit(exchange, any_of)
        route, fields = self.known(model), exchange.head.fields
        request_id = self.predictor.new_id()
        arm = route.choose(request_id) if version is None else route.of_version(version)
        batch, wishes = v2.read_request(exchange.body, fields.get(b"inference-header-content-length"), bundle=arm.bundle)
        timeout = read_timeout(fields.get(b"x-timeout-ms"), wishes.timeout)
        if wishes.reasons:
            ask = partial(self.predictor.tensors, arm=arm, request_id=request_id, batch=batch, write=wishes.write, timeout=timeout)
            self.explainer.explain_tensors(exchange, route, arm=arm, batch=batch, ask=ask)
            return
        self.predictor.tensors(exchange, route, arm=arm, request_id=request_id, batch=batch, write=wishes.write, timeout=timeout)

    def facts(self) -> dict[str, Any]:
        """What people and Prometheus read of this process."""
        return {
            "uptime_seconds": monotonic() - self._started,
            "ready": self.ready,
            "replies": {str(status): number for status, number in self.replies.items()},
            "connections": self.count_connections(),
            "waiting_rows": self._batcher.waiting_rows,
            "log_waiting_rows": self.log.waiting_rows,
            "log_dropped_rows": self.log.dropped_rows,
            "log_lost_rows": self.log.lost_rows,
            "log_fault": self.log.fault,
            "log_write_errors": self.log.write_errors,
            "online_missed_rows": self._lookup.missed_rows,
            "online_read_errors": self._lookup.read_errors,
            "unforeseen_errors": self.unforeseen.count,
            "loaded_bytes": self.memory.loaded_bytes,
            "unloaded_models": self.memory.unloaded,
            **process_facts(),
        }


def _send(exchange: Exchange, value: Any, *, status: int = HTTPStatus.OK) -> None:
    exchange.respond(status, orjson.dumps(value))


def _need(found: bytes, method: bytes) -> None:
    if found != method and not (method == b"GET" and found == b"HEAD"):
        raise MethodError(method.decode())
