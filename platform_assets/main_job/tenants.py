"""A home, a code location and a web server for each declared tenant, all behind one gateway (decision 51): `falaj up --tenants`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from platform_assets.components.tree import load_tree
from platform_assets.errors import StateError
from platform_assets.identity.doors import TAKEN
from platform_assets.main_job import site
from resources.home import write_atomically
from resources.settings import LAPTOP, Home, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def settings_of(settings: Settings, tenant: str) -> Settings:
    """Return a tenant's settings: a home of its own below this one, any free port, and the GPUs of this machine shared with the others."""
    leases = settings.leases or f"sqlite:///{settings.home.leases}"
    return replace(settings, home=Home(settings.home.tenants / tenant), tenant=tenant, serve_port=0, leases=leases)


def prepare_tenants(settings: Settings) -> list[Settings]:
    """Make a home for each tenant that a model names, bound to it; StateError where that cannot be."""
    if settings.environment != LAPTOP:
        raise StateError(
            f"--tenants keeps tenants apart by homes of this machine, and FALAJ_ENV={settings.environment} puts all of them into one "
            "database; start each tenant with a FALAJ_HOME and a FALAJ_TEAM of its own"
        )
    if settings.tenant is not None:
        raise StateError(f"{settings.home.root} is the home of tenant {settings.tenant}; --tenants is for the home above it")
    names = sorted({model.tenant for model in load_tree(settings.defs_root, settings).models.values()})
    if taken := sorted(TAKEN.intersection(names)):
        raise StateError(
            f"a tenant cannot be named {taken[0]!r}, since the gateway has that address itself; rename it in the models' tenant"
        )
    if not names:
        raise StateError(f"no model is declared below {settings.defs_root}, so there is no tenant to start; `dg scaffold defs` begins one")
    site.prepare(settings)
    found = [settings_of(settings, name) for name in names]
    for one in found:
        one.home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(one.home.tenant, str(one.tenant).encode())  # before anything runs there: it decides what is loaded
        site.prepare(one)
    return found


def start_tenants(settings: Settings, tenants: Sequence[Settings], *, whole: bool = True, mlflow: bool = False) -> str:
    """Start every tenant's web server and the gateway before them; with `whole`, daemon and inference server too. Return the address."""
    for one in tenants if whole else ():
        site.start_server(one, tied=False)
        site.start_daemon(one, tied=False)
    return site.start_web(settings, tenants, mlflow=mlflow)
