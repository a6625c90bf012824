"""Whose turn it is to be judged, and who is judged together. Pure: names, times and tenants in, groups out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

MOST = 50  # models of one run: it then takes some twenty seconds, which is all that one waits for the others


def is_due(*, every: float, asked: float | None, now: float) -> bool:
    """Whether a model's turn has come: `every` and times in seconds since the epoch.

    Turns begin with the epoch, so that all models of one rhythm fall due together, whenever each was asked for.
    """
    return asked is None or now // every > asked // every


def share_out(due: Mapping[str, str], *, alone: Collection[str], most: int = MOST) -> list[tuple[str, ...]]:
    """Return who is judged together: each model that is due (with its tenant) once, never two tenants in one group, at most so many.

    `alone` are those that nobody shall have to wait for: each is a group of its own, after the others.
    """
    of_tenant: dict[str, list[str]] = {}
    for model, tenant in sorted(due.items()):
        if model not in alone:
            of_tenant.setdefault(tenant, []).append(model)
    groups = [tuple(models[at : at + most]) for models in of_tenant.values() for at in range(0, len(models), most)]
    return [*groups, *((model,) for model in sorted(set(alone) & due.keys()))]
