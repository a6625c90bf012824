"""The verbs of `falaj drift` by which a person speaks to the retraining policy. Their work is in main_job/policy_verbs.py."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from resources.settings import read_settings

Model = Annotated[str, typer.Argument(help="Name of a declared model.")]


def ask(
    model: Model,
    *,
    because: Annotated[str, typer.Option(help="Why; it stands in the verdict and in the audit log.")],
    trigger: Annotated[str, typer.Option(help="person, event (the world changed) or erasure (rows had to be forgotten).")] = "person",
) -> None:
    """Ask the policy for a retraining; it is made unless one is under way or the data are at fault."""
    from platform_assets.main_job import policy_verbs

    sys.stdout.write(policy_verbs.ask_for_retraining(read_settings(), model, because=because, trigger=trigger) + "\n")


def acknowledge(model: Model) -> None:
    """Say that what was told about a model is known: nobody is reminded of it any more."""
    from platform_assets.main_job import policy_verbs

    count = policy_verbs.acknowledge(read_settings(), model)
    sys.stdout.write((f"{count} notices about {model} are acknowledged." if count else f"There is no open notice about {model}.") + "\n")
