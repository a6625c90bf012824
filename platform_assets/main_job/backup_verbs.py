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
from resources.team import ask_servers
from resources.team_backups import TeamServers


def back_up_home(settings: Settings, archive: Path, keys: Path) -> dict[str, Any]:
    """Write a backup of this home and of a team's servers; the audit log says who took it."""
    servers = _servers(settings)
    done = backups.back_up(settings.home, archive.expanduser().absolute(), keys.expanduser().absolute(), servers=servers)
    open_audit(settings).append(
        "backup", subject="home", actor=shell_user().name, detail={"id": done["id"], "begun": done["begun"], "files": len(done["files"])}
    )
    return done


def restore_home(settings: Settings, archive: Path, keys: Path) -> dict[str, Any]:
    """Lay this home out from a backup, and fill a team's empty servers; the audit log says who did, and of which moment it is."""
    done = backups.restore(settings.home, archive.expanduser(), keys.expanduser(), servers=_servers(settings))
    with hold(settings.home, "falaj restore"):
        detail = {"id": done["id"], "begun": done["begun"], "from": done["home"]}
        open_audit(settings).append("restore", subject="home", actor=shell_user().name, detail=detail)
    return done


def _servers(settings: Settings) -> TeamServers | None:
    """Return the team's servers, which answer; None on a laptop. BackupError where state is elsewhere: it would be in no backup."""
    if settings.elsewhere:
        raise BackupError(
            f"{settings.elsewhere[0]} names a place of its own, which this backup does not hold; unset it, or back that place up apart"
        )
    if settings.team is None or settings.team_file is None:
        return None
    ask_servers(settings.team, settings.team_file)
    return TeamServers(settings.team)
