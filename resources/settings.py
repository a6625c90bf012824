"""The only room that names an environment variable, and the layout of FALAJ_HOME."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets import logs
from platform_assets.errors import StateError
from resources.notices import NoticeSettings, read_notices
from resources.trace_settings import TraceSettings, read_traces
from resources.variables import QUIET, STEADY, VARIABLES

if TYPE_CHECKING:
    from platform_assets.specs.places import Place
    from platform_assets.specs.team import TeamSpec

_MAX_PORT = 65535
_MAX_WORKERS = 256
STEPS = ("process", "pods")
LAPTOP, TEAM = "laptop", "team"
TENANTS_TEAM = "team.toml"  # in a tenant's home, whatever FALAJ_TEAM says
_ENVIRONMENTS = (LAPTOP, TEAM)
CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Home:
    """Folders and files under FALAJ_HOME. Nothing here creates them; `resources.home` does."""

    root: Path

    @property
    def instance(self) -> Path:
        """DAGSTER_HOME."""
        return self.root / "instance"

    @property
    def tables(self) -> Path:
        """Delta tables."""
        return self.root / "tables"

    @property
    def artefacts(self) -> Path:
        """Content-addressed folders."""
        return self.root / "artefacts"

    @property
    def releases(self) -> Path:
        """Releases, signed and encrypted, by digest."""
        return self.root / "releases"

    @property
    def feast(self) -> Path:
        """Feast's registry and online store."""
        return self.root / "feast"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artefacts."""
        return self.root / "mlflow"

    @property
    def keys(self) -> Path:
        """Secrets, files of mode 0600."""
        return self.root / "keys"

    @property
    def serving(self) -> Path:
        """The inference server's state and prediction log."""
        return self.root / "serving"

    @property
    def replicas(self) -> Path:
        """Folders of inference servers behind a load balancer, one each; their logs are brought into the home's own."""
        return self.root / "serving-replicas"

    @property
    def state(self) -> Path:
        """SQLite database of clock, ledger and audit log."""
        return self.root / "state.sqlite"

    @property
    def cache(self) -> Path:
        """This node's cache of encoded shards, by content; what is gone is made again."""
        return self.root / "cache"

    @property
    def notices(self) -> Path:
        """SQLite database of notices to people and their deliveries."""
        return self.root / "notices.sqlite"

    @property
    def studies(self) -> Path:
        """Optuna's SQLite database of hyperparameter searches."""
        return self.root / "studies.sqlite"

    @property
    def leases(self) -> Path:
        """SQLite database of GPU leases, where FALAJ_LEASES names no other table."""
        return self.root / "leases.sqlite"

    @property
    def trainings(self) -> Path:
        """Folders of trainings that are not stored yet: a killed run finds its trainer and its checkpoints here."""
        return self.root / "trainings"

    @property
    def run(self) -> Path:
        """Lock and process records."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Output of background processes."""
        return self.root / "logs"

    @property
    def events(self) -> Path:
        """Queues of events, SQLite."""
        return self.root / "events.sqlite"

    @property
    def erasures(self) -> Path:
        """Sealed journals of erasures under way."""
        return self.root / "erasures"

    @property
    def used(self) -> Path:
        """SQLite database of links and sessions that are good no more."""
        return self.root / "used.sqlite"

    @property
    def web_socket(self) -> Path:
        """Where Dagster's web server listens, for the gateway alone."""
        return self.run / "web.sock"

    @property
    def mlflow_socket(self) -> Path:
        """Where MLflow's server listens, for the gateway alone."""
        return self.run / "mlflow.sock"

    @property
    def tenant(self) -> Path:
        """Name of the tenant that this home is bound to; without the file it is everybody's."""
        return self.root / "tenant"

    @property
    def tenants(self) -> Path:
        """Homes of tenants that have one each."""
        return self.root / "tenants"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def metrics(self) -> Path:
        """Gauges of running trainings, for node_exporter's textfile collector."""
        return self.root / "metrics"

    @property
    def sources(self) -> Path:
        """JSON of datasets provided at run time: name to path or URL."""
        return self.root / "sources.json"


@dataclass(frozen=True)
class IdentitySettings:
    """Who says who somebody is, and by which policies it is decided what they may."""

    policies: Path = CHECKOUT / "infra" / "policies"
    web_url: str | None = None
    issuer: str | None = None
    client_id: str = "falaj"
    client_secret_file: Path | None = None
    audience: str = "falaj-gateway"
    roles: str = "roles"
    tenants: str = "tenants"


@dataclass(frozen=True)
class Settings:
    """What the environment decides."""

    home: Home
    environment: str
    defs_root: Path
    webhook_url: str | None
    serve_port: int
    web_port: int
    home_is_chosen: bool = False
    leases: str | None = None
    ledger: str | None = None
    events: str | None = None
    senders: Path | None = None
    data: Path | None = None
    serve_workers: int = 1
    serve_url: str | None = None
    mtls: str = "off"  # or local, or the folder of certificates that others write
    steps: str = "process"
    profile: str | None = None
    notices: NoticeSettings = field(default_factory=NoticeSettings)
    identity: IdentitySettings = IdentitySettings()
    log_form: str = logs.TEXT
    traces: TraceSettings = field(default_factory=TraceSettings)
    team: TeamSpec | None = None
    team_file: Path | None = None
    elsewhere: tuple[str, ...] = ()  # variables that name a place of their own for what is kept here otherwise
    places: tuple[Place, ...] = ()
    tenant: str | None = None

    def with_suffix(self, suffix: str) -> Settings:
        """Return the same settings with the home beside this one, named after what it is for."""
        return replace(self, home=Home(self.home.root.with_name(f"{self.home.root.name}-{suffix}")))


def apply_to_this_process(settings: Settings, **more: str) -> None:
    """Let libraries that read the environment themselves (Dagster's instance, MLflow, child processes) see the same home, and `more`."""
    silence_telemetry()
    os.environ.update({"FALAJ_HOME": str(settings.home.root), "DAGSTER_HOME": str(settings.home.instance), **more})


def read_home() -> Home:
    """Read where the home is, and nothing else: a team's file need be neither there nor right."""
    return Home(Path(_chosen("FALAJ_HOME") or CHECKOUT / VARIABLES["FALAJ_HOME"].default).expanduser().absolute())


def read_settings() -> Settings:
    """Read the environment; every default is the laptop's."""
    home = read_home()
    settings = Settings(
        home=home,
        environment=_read_environment(),
        defs_root=Path(_chosen("FALAJ_DEFS") or CHECKOUT / VARIABLES["FALAJ_DEFS"].default).absolute(),
        webhook_url=_chosen("FALAJ_WEBHOOK_URL"),
        serve_port=_read_port("FALAJ_SERVE_PORT"),
        web_port=_read_port("FALAJ_WEB_PORT"),
        home_is_chosen=_chosen("FALAJ_HOME") is not None,
        leases=_chosen("FALAJ_LEASES"),
        ledger=_chosen("FALAJ_LEDGER"),
        events=_chosen("FALAJ_EVENTS"),
        senders=Path(senders).expanduser().absolute() if (senders := _chosen("FALAJ_SENDERS")) else None,
        data=(CHECKOUT / data).resolve() if (data := _chosen("FALAJ_DATA")) else None,
        serve_workers=_read_workers(),
        serve_url=_read_serve_url(),
        mtls=_read_mtls(),
        steps=_read_steps(),
        profile=_chosen("FALAJ_PROFILE"),
        notices=read_notices(_chosen),
        identity=_read_identity(),
        elsewhere=tuple(name for name in ("FALAJ_LEDGER", "FALAJ_EVENTS") if _chosen(name)),
        tenant=home.tenant.read_text().strip() if home.tenant.is_file() else None,
        log_form=_read_log_form(),
        traces=read_traces(_chosen),
    )
    if settings.environment == LAPTOP:
        return with_places(settings)
    named = Path(_chosen("FALAJ_TEAM") or CHECKOUT / VARIABLES["FALAJ_TEAM"].default).expanduser().absolute()
    return with_places(with_team(settings, home.root / TENANTS_TEAM if settings.tenant is not None else named))


def with_places(settings: Settings) -> Settings:
    """Say of every part where it stands; raises StateError where a server's law is not declared."""
    from resources.places import NAMED, read_places

    told = _chosen("FALAJ_JURISDICTIONS") or VARIABLES["FALAJ_JURISDICTIONS"].default
    named = {name: value for name in NAMED if (value := _chosen(name))}
    return replace(settings, places=read_places(told, named=named, team=settings.team, file=settings.team_file))


def with_team(settings: Settings, file: Path) -> Settings:
    """Put the team's servers where nothing else was named; raises SettingsError with all that is wrong with their file."""
    from resources.team import postgresql_dsn, read_team, redis_url

    team = read_team(file)
    if team.store is not None and team.store.ca is not None:
        os.environ["SSL_CERT_FILE"] = str(team.store.ca)  # all that Delta Lake's client asks
    database = postgresql_dsn(team.postgresql, "falaj")
    return replace(
        settings,
        environment=TEAM,
        team=team,
        team_file=file,
        leases=settings.leases or database,
        ledger=settings.ledger or database,
        events=settings.events or redis_url(team.redis),
    )


def _read_identity() -> IdentitySettings:
    def text(name: str) -> str:
        return _chosen(name) or VARIABLES[name].default

    url, secret = _chosen("FALAJ_WEB_URL"), _chosen("FALAJ_OIDC_CLIENT_SECRET_FILE")
    if url is not None and not re.fullmatch(r"https?://[^/?#@\s]+/?", url):
        raise StateError(f"FALAJ_WEB_URL is {url!r}; right would be a scheme and a host, such as https://falaj.example")
    return IdentitySettings(
        policies=Path(_chosen("FALAJ_POLICIES") or CHECKOUT / VARIABLES["FALAJ_POLICIES"].default).absolute(),
        web_url=url.rstrip("/") if url else None,
        issuer=_chosen("FALAJ_OIDC_ISSUER"),
        client_id=text("FALAJ_OIDC_CLIENT_ID"),
        client_secret_file=Path(secret).expanduser().absolute() if secret else None,
        audience=text("FALAJ_OIDC_AUDIENCE"),
        roles=text("FALAJ_OIDC_ROLES"),
        tenants=text("FALAJ_OIDC_TENANTS"),
    )


def _read_serve_url() -> str | None:
    url = _chosen("FALAJ_SERVE_URL")
    if url is not None and not re.fullmatch(r"https?://[^/?#@\s]+/?", url):
        raise StateError(f"FALAJ_SERVE_URL is {url!r}; right would be a scheme and a host, such as https://rollout:8151")
    return url


def _read_mtls() -> str:
    value = _chosen("FALAJ_MTLS") or VARIABLES["FALAJ_MTLS"].default
    if value not in ("off", "local") and not value.startswith("/"):
        raise StateError(
            f"FALAJ_MTLS is {value!r}; right would be off, local, or the absolute path of a folder with tls.crt, tls.key and ca.crt"
        )
    url = _chosen("FALAJ_SERVE_URL")
    if value != "off" and url is not None and not url.startswith("https://"):
        raise StateError(f"FALAJ_SERVE_URL is {url!r}, and FALAJ_MTLS is {value}: certificates are shown over TLS; right would be https://")
    return value


def _read_steps() -> str:
    value = _chosen("FALAJ_STEPS") or VARIABLES["FALAJ_STEPS"].default
    if value not in STEPS:
        raise StateError(f"FALAJ_STEPS is {value!r}; right would be {' or '.join(STEPS)}")
    return value


def _read_log_form() -> str:
    value = _chosen("FALAJ_LOG") or (logs.JSON if "KUBERNETES_SERVICE_HOST" in os.environ else logs.TEXT)
    if value not in logs.FORMS:
        raise StateError(f"FALAJ_LOG is {value!r}; right would be {' or '.join(logs.FORMS)}")
    return value


def _read_workers() -> int:
    value = _chosen("FALAJ_SERVE_WORKERS") or VARIABLES["FALAJ_SERVE_WORKERS"].default
    if not value.isdigit() or int(value) > _MAX_WORKERS:
        raise StateError(f"FALAJ_SERVE_WORKERS is {value!r}; right would be a whole number from 0 to {_MAX_WORKERS}")
    return int(value)


def _chosen(name: str) -> str | None:
    """Return what the user set; set to nothing is left out."""
    return os.environ.get(VARIABLES[name].name) or None


def _read_environment() -> str:
    name = _chosen("FALAJ_ENV") or VARIABLES["FALAJ_ENV"].default
    if name not in _ENVIRONMENTS:
        raise StateError(f"FALAJ_ENV={name!r} was asked for; this version has the parts of: {', '.join(_ENVIRONMENTS)}. Unset it.")
    return name


def _read_port(name: str) -> int:
    text = _chosen(name) or VARIABLES[name].default
    if not text.isdecimal() or not 0 <= int(text) <= _MAX_PORT:
        raise StateError(f"{name}={text!r} is no port; set it to a number from 0 to {_MAX_PORT}, or unset it.")
    return int(text)


def silence_telemetry() -> None:
    """Switch every library's telemetry off, for this process and its children."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def child_environment(settings: Settings, **extra: str) -> dict[str, str]:
    """Environment for a process that this platform starts: same home, telemetry off."""
    ours = {"FALAJ_HOME": str(settings.home.root), "FALAJ_ENV": settings.environment, "FALAJ_DEFS": str(settings.defs_root)}
    ours["FALAJ_MTLS"] = settings.mtls
    if settings.team_file is not None:
        ours["FALAJ_TEAM"] = str(settings.team_file)
    if settings.tenant is not None:
        ours |= {"FALAJ_SERVE_PORT": str(settings.serve_port), "FALAJ_LEASES": settings.leases or ""}
    return {**os.environ, **QUIET, **STEADY, **ours, "DAGSTER_HOME": str(settings.home.instance), **extra}
