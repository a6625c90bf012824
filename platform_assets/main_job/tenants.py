"""A home, a code location and a web server for each declared tenant, all behind one gateway (decision 51): `falaj up --tenants`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from platform_assets.components.tree import load_tree
from platform_assets.errors import Fault, SettingsError, StateError
from platform_assets.identity.doors import TAKEN
from platform_assets.main_job import site
from resources.certificates import LOCAL, OFF
from resources.home import write_atomically
from resources.settings import LAPTOP, TENANTS_TEAM, Home, Settings, with_places, with_team
from resources.team import read_team

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from platform_assets.specs.team import TeamSpec


def settings_of(settings: Settings, tenant: str) -> Settings:
    """Return a tenant's settings: a home of its own below this one, any free port, and the GPUs of this machine shared with the others.

    In a team its servers are those of its home's `team.toml`; SettingsError lists all that is wrong with it.
    """
    leases = settings.leases or f"sqlite:///{settings.home.leases}"
    own = replace(settings, home=Home(settings.home.tenants / tenant), tenant=tenant, serve_port=0, leases=leases)
    if settings.environment == LAPTOP:
        return own
    ledger, events = (
        value if name in settings.elsewhere else None
        for name, value in (("FALAJ_LEDGER", settings.ledger), ("FALAJ_EVENTS", settings.events))
    )
    return with_places(with_team(replace(own, ledger=ledger, events=events), own.home.root / TENANTS_TEAM))


def _hold_apart(settings: Settings, names: Sequence[str]) -> None:
    """See that each tenant has servers of its own (decision 86); SettingsError names every file that is missing, wrong or another's."""
    faults: list[Fault] = []
    taken = [(place, settings.team_file) for place in _places(settings.team)] if settings.team is not None else []
    for name in names:
        file = settings.home.tenants / name / TENANTS_TEAM
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # so that it can be put there
        try:
            own = list(_places(read_team(file)))
        except SettingsError as error:
            faults += error.faults
            continue
        for table, place in own:
            faults += [
                Fault(
                    str(file), table, f"{place} is in {other} as well; each tenant has a database, a Redis database and a prefix of its own"
                )
                for (kind, known), other in taken
                if kind == table and (place.startswith(known) or known.startswith(place))
            ]
        taken += [(place, file) for place in own]
    if faults:
        raise SettingsError(faults, what="the tenants' settings")


def _places(team: TeamSpec) -> Iterator[tuple[str, str]]:
    """Each table and where it keeps things; one place is within another if it begins so."""
    for table, url, port in (("postgresql", team.postgresql.url, 5432), ("redis", team.redis.url, 6379)):
        found = urlsplit(url)
        host = "127.0.0.1" if found.hostname == "localhost" else found.hostname
        yield table, f"{host}:{found.port or port}/{found.path.strip('/') or '0'}/"
    if team.store is not None:
        yield "store", f"{team.store.endpoint}/{team.store.url.removeprefix('s3://').strip('/')}/"
    if team.vault is not None:
        yield "vault", f"{team.vault.url}/{team.vault.namespace or ''}/{team.vault.mount}/{team.vault.key}/"


def prepare_tenants(settings: Settings) -> list[Settings]:
    """Make a home for each tenant that a model names, bound to it; StateError or SettingsError where that cannot be."""
    if settings.tenant is not None:
        raise StateError(f"{settings.home.root} is the home of tenant {settings.tenant}; --tenants is for the home above it")
    if settings.mtls not in (OFF, LOCAL):
        raise StateError(
            f"FALAJ_MTLS is {settings.mtls}, and all tenants would show that one certificate; right would be {LOCAL}, with --tenants an "
            "authority for each of them"
        )
    names = sorted({model.tenant for model in load_tree(settings.defs_root, settings).models.values()})
    if taken := sorted(TAKEN.intersection(names)):
        raise StateError(
            f"a tenant cannot be named {taken[0]!r}, since the gateway has that address itself; rename it in the models' tenant"
        )
    if not names:
        raise StateError(f"no model is declared below {settings.defs_root}, so there is no tenant to start; `dg scaffold defs` begins one")
    site.prepare(settings)
    if settings.environment != LAPTOP:
        _hold_apart(settings, names)
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
