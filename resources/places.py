"""Where the parts of this environment stand, and under whose law: read from FALAJ_JURISDICTIONS and the team's file. Nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from platform_assets.errors import StateError
from platform_assets.specs.places import Part, Place, check_jurisdiction, is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from platform_assets.specs.team import TeamSpec

VARIABLE = "FALAJ_JURISDICTIONS"
# What a server that a variable names keeps or is told.
NAMED: dict[str, tuple[Part, ...]] = {
    "FALAJ_EVENTS": ("events",),
    "FALAJ_LEASES": ("telemetry",),
    "FALAJ_TRACES": ("telemetry",),
    "FALAJ_LEDGER": ("ledger",),
    "FALAJ_SERVE_URL": ("inference server", "production log"),
    "FALAJ_WEBHOOK_URL": ("notices",),
    "FALAJ_SMTP_HOST": ("notices",),
}
_TEAM: dict[str, tuple[Part, ...]] = {
    "postgresql": ("model registry", "studies", "runs", "audit log", "clocks", "ledger"),
    "redis": ("events", "online values"),
    "store": ("tables", "artefacts", "releases"),
    "vault": ("tables", "releases"),  # who holds the keys can read them
}
# What lies in FALAJ_HOME whatever else is named: caches, logs, outboxes, files beside a database.
_STAYS: tuple[Part, ...] = ("artefacts", "releases", "model registry", "runs", "production log", "telemetry", "notices")


def read_places(told: str, *, named: Mapping[str, str], team: TeamSpec | None = None, file: Path | None = None) -> tuple[Place, ...]:
    """Return every part with its law; StateError where one is not said, in a sentence.

    `told` is FALAJ_JURISDICTIONS: this machine's, then servers' by variable. `named`: what each set variable names.
    """
    here, elsewhere = read_jurisdictions(told)
    places: list[Place] = []
    for variable, address in named.items():
        host = _host(variable, address)
        if host is None and variable not in elsewhere:
            law = here
        elif variable in elsewhere:
            law = elsewhere[variable]
        else:
            raise StateError(
                f"{variable} names {host}, which is not on loopback, and {VARIABLE}={told!r} does not say whose law holds there; "
                f"right would be {VARIABLE}={f'{told}, {variable}={here}'!r}, with the server's own letters"
            )
        where = f"what {variable} names" + (f", {host}" if host else "")
        places += [Place(part, where, law, VARIABLE) for part in NAMED[variable]]
    taken = {place.part for place in places}
    for table, address, said in _servers(team) if team is not None else ():
        declared = f"{file}: {table}.jurisdiction" if said else VARIABLE
        where = f"{table} at {urlsplit(address).hostname}"
        places += [Place(part, where, said or here, declared) for part in _TEAM[table] if part not in taken]
    taken = {place.part for place in places} - set(_STAYS)
    home = [Place(part, "FALAJ_HOME on this machine", here, VARIABLE) for part in get_args(Part) if part not in taken | {"edge box"}]
    return (*home, *places)


def _servers(team: TeamSpec) -> Iterator[tuple[str, str, str | None]]:
    """Every table of the team's file, the address in it, and the law that it names."""
    yield "postgresql", team.postgresql.url, team.postgresql.jurisdiction
    yield "redis", team.redis.url, team.redis.jurisdiction
    if team.store is not None:
        yield "store", team.store.endpoint, team.store.jurisdiction
    if team.vault is not None:
        yield "vault", team.vault.url, team.vault.jurisdiction


def read_jurisdictions(told: str) -> tuple[str, dict[str, str]]:
    """Return this machine's jurisdiction and those of servers by the variable that names them; StateError says what is wrong."""
    first, *others = (part.strip() for part in told.split(","))
    elsewhere: dict[str, str] = {}
    try:
        here = check_jurisdiction(first)
        for other in others:
            variable, _, law = (part.strip() for part in other.partition("="))
            elsewhere[_check_variable(variable)] = check_jurisdiction(law)
    except ValueError as error:
        raise StateError(f"{VARIABLE}={told!r}: {error}; right would be for example 'AE, FALAJ_EVENTS=AE'") from None
    return here, elsewhere


def _check_variable(name: str) -> str:
    if name not in NAMED:
        raise ValueError(f"{name!r} names no server; valid: {', '.join(NAMED)}")
    return name


def _host(variable: str, address: str) -> str | None:
    """Return the host that an address names, None where it is this machine: loopback, a socket or a file."""
    host = address.partition(":")[0] if variable == "FALAJ_SMTP_HOST" else urlsplit(address).hostname
    return None if host is None or is_loopback(host) else host
