"""The verbs about persons: erase one everywhere, answer an access request. Both by the column that a dataset declares as `subject`."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.components import subjects
from platform_assets.definitions import bind_parts
from platform_assets.errors import DataError, StateError
from platform_assets.main_job import site
from resources.home import hold, write_atomically
from resources.settings import apply_to_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from resources.parts import Parts
    from resources.settings import Settings


def erase_subject(settings: Settings, subject: str | None) -> Iterator[dict[str, Any]]:
    """Finish every erasure that is under way; yield what each did. None asks for no new one.

    One that cannot be proven keeps no other waiting: StateError comes at the end, for all of these.
    """
    if subject is not None and not subject.strip():
        raise DataError("--subject is empty; name the person as the dataset's `subject` column does")
    parts = _open(settings)
    with hold(settings.home, "falaj erase"), dg.DagsterInstance.get() as instance:
        if subject is not None:
            subjects.ask_erasure(parts, subject, by=getpass.getuser())
        unproven = []
        for erasure in parts.erasures.under_way():
            try:
                result = subjects.erase(parts, instance, erasure)
            except StateError as error:
                unproven.append(str(error))
            else:
                yield result
        if unproven:
            raise StateError("; ".join(unproven))


def export_subject(settings: Settings, subject: str, *, file: Path) -> dict[str, Any]:
    """Write everything that is held of a person into a file of mode 0600; return how many rows by table."""
    found = subjects.export(_open(settings), subject, by=getpass.getuser())
    write_atomically(file, json.dumps(found, indent=1, default=str).encode(), mode=0o600)
    return {table: len(rows) for table, rows in found["tables"].items()}


def _open(settings: Settings) -> Parts:
    site.prepare(settings)
    apply_to_this_process(settings)
    return bind_parts(settings)
