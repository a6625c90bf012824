"""Telling people: to the log at once, to webhook and e-mail through the outbox. What is worth telling is decided by the callers."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from platform_assets.ports import Notifier
    from resources.outbox import Outbox
    from resources.settings import Settings

_LOG = logging.getLogger("falaj.notify")
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def build_notifier(settings: Settings) -> Notifier:
    """Tell the log, and put what the receivers that are set are to get into the home's outbox."""
    from resources.couriers import build_couriers
    from resources.outbox import Outbox

    outbox = Outbox(settings.home.notices, remind_after=settings.notices.remind_after)
    return Notifiers([LogNotifier(), OutboxNotifier(outbox, [courier.name for courier in build_couriers(settings)])])


class LogNotifier:
    """Writes messages to the process's log."""

    def notify(self, title: str, text: str, *, severity: str, key: str = "") -> None:
        """Log one message at its severity: info, warning or error."""
        del key
        _LOG.log(_LEVELS.get(severity, logging.WARNING), "%s: %s", title, text)


class OutboxNotifier:
    """Leaves messages for couriers, who deliver them in their own time; one message a key until a reminder is due."""

    def __init__(self, outbox: Outbox, couriers: Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self._outbox, self._couriers, self._clock = outbox, tuple(couriers), clock

    def notify(self, title: str, text: str, *, severity: str, key: str = "") -> None:
        """Put one message into the outbox; a disk that does not take it is logged and never stops the caller."""
        try:
            self._outbox.put(title, text, severity=severity, key=key, couriers=self._couriers, now=self._clock())
        except (OSError, sqlite3.Error) as error:
            _LOG.warning("the outbox did not take %r: %s", title, error)


class Notifiers:
    """Several notifiers as one."""

    def __init__(self, parts: Sequence[Notifier]) -> None:
        self._parts = tuple(parts)

    def notify(self, title: str, text: str, *, severity: str, key: str = "") -> None:
        """Tell every part."""
        for part in self._parts:
            part.notify(title, text, severity=severity, key=key)
