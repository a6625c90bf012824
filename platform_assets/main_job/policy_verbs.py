"""The verbs by which a person speaks to the retraining policy: ask for a retraining, acknowledge what was told."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING

from platform_assets import keys
from platform_assets.components.retraining_history import WANTED
from platform_assets.errors import StateError
from platform_assets.main_job.operations import open_parts
from platform_assets.stages.retraining.policy import WORDS
from resources.outbox import Outbox

if TYPE_CHECKING:
    from resources.settings import Settings


def ask_for_retraining(settings: Settings, model: str, *, because: str, trigger: str) -> str:
    """Write that somebody asks for a retraining, for the policy's next decision; return one sentence."""
    if trigger not in WORDS:
        raise StateError(f"--trigger {trigger}: right would be one of {', '.join(WORDS)}")
    if not because.strip():
        raise StateError('--because is empty; say why, for example --because "the price list changed"')
    parts = open_parts(settings, model)
    detail = {"trigger": trigger, "why": because.strip(), "at": parts.clock.now(parts.catalogue.models[model].dataset).isoformat()}
    parts.audit.append(WANTED, subject=f"model/{model}", actor=getpass.getuser(), detail=detail)
    return f"Written; the next decision takes it up, made by the job {keys.monitor_job(model)} or by falaj run."


def acknowledge(settings: Settings, model: str) -> int:
    """Mark every open notice about a model as known, so that nobody is told of it again; return how many there were."""
    parts, who = open_parts(settings, model), getpass.getuser()
    count = Outbox(settings.home.notices).acknowledge(f"{model}/", who=who, now=time.time())
    if count:
        parts.audit.append("acknowledged", subject=f"model/{model}", actor=who, detail={"notices": count})
    return count
