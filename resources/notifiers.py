"""Telling people: to the log, to a webhook, to several at once. What is worth telling is decided by the callers."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from platform_assets.ports import Notifier

_LOG = logging.getLogger("falaj.notify")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def build_notifier(webhook_url: str | None) -> Notifier:
    """Tell the log, and the webhook where there is one."""
    return Notifiers([LogNotifier(), WebhookNotifier(webhook_url)]) if webhook_url else LogNotifier()


class LogNotifier:
    """Writes messages to the process's log."""

    def notify(self, title: str, text: str, *, severity: str) -> None:
        """Log one message at its severity: info, warning or error."""
        _LOG.log(_LEVELS.get(severity, logging.WARNING), "%s: %s", title, text)


class WebhookNotifier:
    """Posts `{"title", "text", "severity"}` as JSON to one URL."""

    def __init__(self, url: str, *, timeout_seconds: float = 5.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"a webhook needs an http or https URL, found {url!r}; FALAJ_WEBHOOK_URL sets it")
        self._url = url
        self._timeout_seconds = timeout_seconds

    def notify(self, title: str, text: str, *, severity: str) -> None:
        """Post one message; a receiver that is away or refuses is logged and never stops the caller."""
        body = json.dumps({"title": title, "text": text, "severity": severity}).encode()
        request = urllib.request.Request(self._url, data=body, headers={"Content-Type": "application/json"}, method="POST")  # noqa: S310  (scheme checked above)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds):  # noqa: S310  (scheme checked above)
                pass
        except (OSError, urllib.error.URLError, ValueError) as error:
            _LOG.warning("the webhook did not take %r: %s", title, error)


class Notifiers:
    """Several notifiers as one."""

    def __init__(self, parts: Sequence[Notifier]) -> None:
        self._parts = tuple(parts)

    def notify(self, title: str, text: str, *, severity: str) -> None:
        """Tell every part."""
        for part in self._parts:
            part.notify(title, text, severity=severity)
