"""The inference server as others reach it: its command, its traffic, its predictions. The server itself is in stages."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import orjson

from platform_assets.errors import AccessError, RequestError, ServingError
from platform_assets.keys import model_key
from platform_assets.logs import TEXT
from platform_assets.ports import ReleaseStore
from platform_assets.specs.log_counts import LogCounts
from platform_assets.specs.record_json import from_mapping
from platform_assets.specs.records import ArmFigures
from platform_assets.stages.serving.frames import read_rows
from platform_assets.stages.serving.log_counts import read_counts
from platform_assets.stages.serving.online import FILE_NAME
from platform_assets.stages.serving.prediction_log import close_left_overs, closed_segments
from resources.certificates import OFF, client_context, server_options
from resources.replicas import count, gather
from resources.settings import Home, Settings
from resources.tokens import ensure_signing_key, mint

if TYPE_CHECKING:
    from resources.border import Border

READY_FILE = "inference_server.json"
_HINT = "start it with `falaj up` or `falaj serve MODEL`"
_TIMEOUT_SECONDS = 60.0
_ADMIN_TOKEN_SECONDS = 900


@dataclass(frozen=True)
class RunningServer:
    """A server that announced itself."""

    pid: int
    url: str


def ready_file(home: Home) -> Path:
    """Where the server announces itself."""
    return home.run / READY_FILE


def find_server(home: Home) -> RunningServer | None:
    """Server of this home, or None where none runs; an announcement of a killed one does not count."""
    try:
        found = json.loads(ready_file(home).read_bytes())
        server = RunningServer(int(found["pid"]), str(found["url"]))
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return server if _is_server(server.pid) else None


def server_address(settings: Settings) -> str:
    """Address of this home's server: as told, as announced, or as it would be."""
    if settings.serve_url:
        return settings.serve_url
    running = find_server(settings.home)
    return running.url if running is not None else f"http{'s' if settings.mtls != OFF else ''}://127.0.0.1:{settings.serve_port}"


def server_is_up(settings: Settings) -> bool:
    """Whether this home's server listens."""
    return find_server(settings.home) is not None


def server_command(settings: Settings, *, port: int | None = None) -> list[str]:
    """Command that runs this home's server on loopback; makes the keys it verifies tokens with where there are none."""
    home = settings.home
    ensure_signing_key(home.keys)
    return [
        sys.executable, "-m", "platform_assets.stages.serving",
        "--serving", str(home.serving), "--host", "127.0.0.1", "--port", str(settings.serve_port if port is None else port),
        "--keys", str(home.keys), *_values_option(settings), "--ready-file", str(ready_file(home)),
        "--workers", str(settings.serve_workers), *(["--oidc-issuer", settings.identity.issuer] if settings.identity.issuer else []),
        *server_options(settings), *_told(settings),
    ]  # fmt: skip


def _told(settings: Settings) -> list[str]:
    traces = settings.traces
    return [
        *(["--log", settings.log_form] if settings.log_form != TEXT else []),
        *(["--traces", traces.endpoint, "--traces-share", str(traces.share)] if traces.endpoint else []),
    ]


def _values_option(settings: Settings) -> list[str]:
    return ["--team", str(settings.team_file)] if settings.team is not None else ["--online", str(settings.home.feast / FILE_NAME)]


def connect(settings: Settings, *, token: str | None = None) -> PredictClient:
    """Client of this home's server; ServingError where none runs."""
    tls = partial(client_context, settings)
    if settings.serve_url:
        return PredictClient(settings.serve_url, token=token, tls=tls)
    running = find_server(settings.home)
    if running is None:
        raise ServingError(f"no inference server answers for {settings.home.root}; {_HINT}")
    if settings.mtls != OFF and not running.url.startswith("https:"):
        raise ServingError(
            f"FALAJ_MTLS is {settings.mtls}, and {running.url} was started without; `falaj down` stops it, then start it anew"
        )
    return PredictClient(running.url, token=token, tls=tls)


def _is_server(pid: int) -> bool:
    """Whether this process is alive and ours: a number may have been given to another program since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"platform_assets.stages.serving" in command and state != "Z"


def log_lines(folder: Path) -> list[Path]:
    """Turn every closed segment of a model's log into JSON lines, a line a row; return the files, oldest first.

    Each is written beside and renamed before its segment goes: a kill leaves the segment, or both, and the next call goes on.
    """
    for segment in closed_segments(folder):
        beside = segment.with_suffix(".tmp")
        with beside.open("wb") as stream:
            stream.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in read_rows(segment))
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(segment.with_suffix(".jsonl"))
        segment.unlink()
    return sorted(folder.glob("*.jsonl"), key=lambda file: tuple(map(int, file.stem.split("-"))))


class PredictClient:
    """Asks a server over one kept connection. Not for several threads at once: each takes its own."""

    Refused = RequestError

    def __init__(
        self, url: str, *, token: str | None = None, tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:  # fmt: skip
        """`tls`: what is shown and trusted, asked at each new connection; nothing is the system's authorities and no certificate."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServingError(f"{url!r} is not the address of an inference server; write for example http://127.0.0.1:8151")
        self._host, self._port, self._timeout = parts.hostname, parts.port, timeout_seconds
        self._url, self._tls = url, tls if parts.scheme == "https" else None
        self._connection = self._make_connection()
        self._head = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}

    def predict(self, model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Ask for rows of named columns; times may be datetimes. RequestError where the server refuses them, naming the field."""
        return self.request("POST", f"/v1/models/{model}:predict", {"rows": list(rows)})

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One JSON request; refusals come as the error of their kind."""
        data = None if body is None else _encode(body)
        status, answer = self._send(method, path, data)
        try:
            value = json.loads(answer)
        except ValueError as error:
            raise ServingError(f"{self._url} answered {method} {path} with no JSON (status {status})") from error
        if status == http.client.OK:
            return value
        sentence = value.get("error", f"status {status}") if isinstance(value, dict) else f"status {status}"
        raise _ERRORS.get(status, ServingError)(sentence)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls())

    def _send(self, method: str, path: str, data: bytes | None) -> tuple[int, bytes]:
        for attempt in (1, 2):
            fresh = self._connection.sock is None
            try:
                self._connection.request(method, path, body=data, headers=self._head)
                reply = self._connection.getresponse()
                return reply.status, reply.read()
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                self._connection = self._make_connection()
                # The server may close a kept connection between two requests; a new one tells whether it is there.
                lost = isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError | ssl.SSLEOFError)
                if attempt == 1 and lost and not fresh:
                    continue
                if isinstance(error, ssl.SSLError):
                    raise ServingError(
                        f"{self._url} and this service do not trust each other: {_said(error)}; FALAJ_MTLS says what is shown"
                    ) from error
                raise ServingError(f"no inference server answers at {self._url} ({error}); {_HINT}") from error
        raise AssertionError  # the second attempt returns or raises


_ERRORS: dict[int, type[ServingError]] = {400: RequestError, 401: AccessError, 403: AccessError, 404: RequestError, 413: RequestError}


def _said(error: ssl.SSLError) -> str:
    """Return what a handshake failed of: an alert is what the other side holds against our certificate (RFC 8446, 6.2)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({error.verify_message})"
    _, alert, what = (error.reason or str(error)).rpartition("ALERT_")
    return f"it refused our certificate ({what.replace('_', ' ').lower()})" if alert else f"no connection by TLS ({what})"


def _encode(body: Any) -> bytes:
    """JSON: times as ISO 8601, NaN as null, numpy values as what they hold."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise RequestError(f"the rows cannot be sent: {error}; use text, numbers, booleans, times or null") from error


class LocalServing:
    """Serving target on this machine, over the server's admin routes."""

    def __init__(
        self,
        settings: Settings,
        releases: ReleaseStore,
        *,
        border: Border | None = None,
        trace_of: Callable[[str, str], str | None] | None = None,
    ) -> None:
        """`border` has the last word on whether a model may be placed on this server at all; `trace_of` a release says where it was made.

        The server links predictions to that place in a trace.
        """
        self._settings = settings
        self._releases = releases
        self._border = border
        self._trace_of = trace_of

    def load(self, model: str, digest: str) -> None:
        """Load, warm and check a release beside what is live; a bad one raises ServingError and changes nothing."""
        if self._border is not None:
            self._border.hold(model_key(model, "deployed"), actor="inference server")
        self._ask(
            "POST", model, "load", {"digest": digest, "path": str(self._releases.path(digest).absolute()), **self._link(model, digest)}
        )

    def _link(self, model: str, digest: str) -> dict[str, str]:
        where = self._trace_of(model, digest) if self._trace_of is not None and self._settings.traces.endpoint else None
        return {"trace": where} if where else {}

    def set_traffic(self, model: str, *, live: str, challenger: str | None = None, mode: str = "live", percent: int = 0) -> None:
        """Set who answers; in force when this returns."""
        self._ask("POST", model, "traffic", {"live": live, "challenger": challenger, "mode": mode, "percent": percent})

    def status(self, model: str) -> dict[str, Any]:
        """Traffic and figures; `arms` holds ArmFigures by digest. A model the server does not know has nothing live."""
        found = self._ask("GET", model)
        return {**found, "arms": {digest: from_mapping(ArmFigures, figures) for digest, figures in found["arms"].items()}}

    def arms(self, model: str) -> dict[str, ArmFigures]:
        """Figures since the last change of traffic, by digest."""
        return dict(self.status(model)["arms"])

    def rotate_log(self, model: str) -> list[Path]:
        """Close the current segment of the prediction log, or what a stopped server left; return all as JSON lines, oldest first."""
        if find_server(self._settings.home) is None and self._settings.serve_url is None:
            close_left_overs(self._settings.home.serving / "log")
        else:
            self._ask("POST", model, "rotate", {})
        gather(self._settings.home.replicas, self._settings.home.serving / "log")
        return log_lines(self._settings.home.serving / "log" / model)

    def log_counts(self, model: str) -> LogCounts:
        """Rows answered and what became of them; read from files, whether a server runs or not."""
        return read_counts(self._settings.home.serving / "log" / model) + count(self._settings.home.replicas, model)

    def _ask(self, method: str, model: str, verb: str = "", body: Any = None) -> Any:
        token = mint(self._settings.home.keys, scopes=("admin",), seconds=_ADMIN_TOKEN_SECONDS, subject="platform")
        with connect(self._settings, token=token) as client:
            return client.request(method, f"/admin/models/{model}" + (f"/{verb}" if verb else ""), body)
