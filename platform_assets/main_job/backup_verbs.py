"""`falaj backup` and `falaj restore`: which home, and what is said of it in the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from platform_assets.errors import BackupError
from resources import backups
from resources.home import hold
from resources.issuers import shell_user
from resources.parts import open_audit
from resources.settings import Settings


def back_up_home(settings: Settings, archive: Path, keys: Path) -> dict[str, Any]:
    """Write a backup of this home; the audit log says who took it."""
    _embedded(settings)
    done = backups.back_up(settings.home, archive.expanduser().absolute(), keys.expanduser().absolute())
    open_audit(settings).append(
        "backup", subject="home", actor=shell_user().name, detail={"id": done["id"], "begun": done["begun"], "files": len(done["files"])}
    )
    return done


def restore_home(settings: Settings, archive: Path, keys: Path) -> dict[str, Any]:
    """Lay this home out from a backup; the audit log says who did, and of which moment it is."""
    _embedded(settings)
    done = backups.restore(settings.home, archive.expanduser(), keys.expanduser())
    with hold(settings.home, "falaj restore"):
        detail = {"id": done["id"], "begun": done["begun"], "from": done["home"]}
        open_audit(settings).append("restore", subject="home", actor=shell_user().name, detail=detail)
    return done


def _embedded(settings: Settings) -> None:
    if settings.team is not None or settings.ledger or settings.events:
        raise BackupError(
            "this environment keeps state in servers, and this backup is of a home whose parts are all embedded; back the servers up with "
            "their own means (docs/how-to/back-up-and-restore.md)"
        )
