"""Logs as events: a line of JSON each where machines read them, plain sentences where people do. Of secrets nothing goes into either.

A line holds when, how grave, which part of the platform, what happened, and as far as it is known the run, step, model and version. Where
there is JSON is decided by whoever starts a process (`resources/settings.py`, or `--log`).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

TEXT, JSON = "text", "json"
FORMS = (TEXT, JSON)
_OURS = ("falaj", "dagster", "platform_assets", "resources")
_WITH_HANDLERS = ("dagster", "dagster-webserver", "uvicorn", "uvicorn.error")  # which write by themselves, beside the root
_NAMES = ("run", "step", "model", "version", "job")
_known: ContextVar[Mapping[str, str]] = ContextVar("falaj_log", default={})  # noqa: B039 - never changed in place
_services: list[str] = []  # at most one: this process's, where it writes JSON
# Passwords in addresses, credentials of requests, tokens, and whatever is called a secret and given a value.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "***"),
    (
        re.compile(
            r"((?:password|passwd|secret|token|api_?key|secret_access_key)[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&]+", re.IGNORECASE
        ),
        r"\1***",
    ),
)  # fmt: skip


@contextmanager
def bound(**names: str | None) -> Iterator[None]:
    """Have every line that is written inside say this run, step, model or version."""
    token = _known.set({**_known.get(), **{name: value for name, value in names.items() if value}})
    try:
        yield
    finally:
        _known.reset(token)


def hide(text: str) -> str:
    """Return a text without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class JsonLines(logging.Formatter):
    """One line of JSON a record."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        event: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"), "level": record.levelname.lower(),
            "service": self._service, "event": hide(record.getMessage()), **_of_dagster(record), **_known.get(),
            **{name: str(value) for name in _NAMES if (value := record.__dict__.get(name)) is not None}, "logger": record.name,
        }  # fmt: skip
        if record.exc_info and record.exc_info[0] is not None:
            event["error"] = hide("".join(traceback.format_exception(*record.exc_info)))
        return json.dumps(event, ensure_ascii=False)


def start_logging(service: str, form: str) -> None:
    """Write JSON from now on, where that is the form: what the standard library's loggers take, warnings, and what ends this process."""
    if form != JSON:
        return
    _services[:] = [service]
    root = logging.getLogger()
    root.handlers = [json_handler(service)]
    root.setLevel(logging.WARNING)  # libraries say much of what goes well
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in _WITH_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.captureWarnings(capture=True)
    sys.excepthook = _last_words


def json_handler(service: str) -> logging.Handler:
    """Return a handler that writes JSON to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(service))
    return handler


def writes_json() -> bool:
    """Whether this process was told to."""
    return bool(_services)


def uvicorn_logging() -> dict[str, Any]:
    """Return what uvicorn is told: its own loggers, or this process's."""
    return {"log_config": None} if _services else {}


def say(sentence: str, *, level: int = logging.ERROR, **names: str | None) -> None:
    """Say a sentence on standard error: a line of JSON where this process writes that, else as it is."""
    if _services:
        with bound(**names):
            logging.getLogger("falaj").log(level, "%s", sentence)
    else:
        sys.stderr.write(f"{hide(sentence)}\n")


def event(sentence: str, *, level: int = logging.INFO, **names: str | None) -> None:
    """Note what happened, for machines alone: where people read, they are not told of what goes well."""
    if _services:
        say(sentence, level=level, **names)


def _of_dagster(record: logging.LogRecord) -> dict[str, str]:
    """Run, step and model of a record of Dagster's, whose steps are called as `keys` mints them: family, name, state."""
    meta = record.__dict__.get("dagster_meta") or {}
    found = {"run": meta.get("run_id"), "step": meta.get("step_key"), "job": meta.get("job_name")}
    parts = str(meta.get("step_key") or "").split("__")
    if parts[0] == "model" and len(parts) > 1:
        found["model"] = "__".join(parts[1:-1])
    return {name: str(value) for name, value in found.items() if value}


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("falaj").critical("ended by %s", kind.__name__, exc_info=(kind, error, trace))
