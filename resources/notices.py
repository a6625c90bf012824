"""How people outside are told, as the environment says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import StateError
from resources.variables import VARIABLES

if TYPE_CHECKING:
    from resources.couriers import Mailbox, QuietHours


@dataclass(frozen=True)
class NoticeSettings:
    """How people outside are told; secrets stand in the files that are named here, never in these values."""

    webhook_secret_file: Path | None = None
    mailbox: Mailbox | None = None
    quiet: QuietHours | None = None
    remind_after: timedelta = timedelta(days=1)


def read_notices(chosen: Callable[[str], str | None]) -> NoticeSettings:
    """Read them from the variables that `chosen` knows; StateError names one that is wrong."""
    from platform_assets.specs.base import parse_span
    from resources.couriers import read_mailbox, read_quiet_hours

    def file(name: str) -> Path | None:
        return Path(found).expanduser().absolute() if (found := chosen(name)) else None

    remind = chosen("FALAJ_REMIND_AFTER") or VARIABLES["FALAJ_REMIND_AFTER"].default
    try:
        remind_after = parse_span(remind)
    except ValueError as error:
        raise StateError(f"FALAJ_REMIND_AFTER: {error}") from None
    mailbox = read_mailbox(
        chosen("FALAJ_SMTP_HOST"),
        security=chosen("FALAJ_SMTP_SECURITY") or VARIABLES["FALAJ_SMTP_SECURITY"].default,
        sender=chosen("FALAJ_MAIL_FROM"),
        receivers=chosen("FALAJ_MAIL_TO"),
        user=chosen("FALAJ_SMTP_USER"),
        password_file=file("FALAJ_SMTP_PASSWORD_FILE"),
    )
    return NoticeSettings(file("FALAJ_WEBHOOK_SECRET_FILE"), mailbox, read_quiet_hours(chosen("FALAJ_QUIET_HOURS")), remind_after)
