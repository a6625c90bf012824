"""The only room that names an environment variable, and the layout of FALAJ_HOME."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from platform_assets.errors import StateError

_MAX_PORT = 65535
CHECKOUT = Path(__file__).resolve().parent.parent

# Set before any library is imported: nothing may call home, on any path that starts this platform.
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "FEAST_USAGE": "False",
    "GIT_PYTHON_REFRESH": "quiet",
}


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
    def state(self) -> Path:
        """SQLite database of clock, ledger and audit log."""
        return self.root / "state.sqlite"

    @property
    def run(self) -> Path:
        """Lock and process records."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Output of background processes."""
        return self.root / "logs"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def sources(self) -> Path:
        """JSON of datasets provided at run time: name to path or URL."""
        return self.root / "sources.json"


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

    def with_suffix(self, suffix: str) -> Settings:
        """Return the same settings with the home beside this one, named after what it is for."""
        return replace(self, home=Home(self.home.root.with_name(f"{self.home.root.name}-{suffix}")))


def apply_to_this_process(settings: Settings) -> None:
    """Let libraries that read the environment themselves (Dagster's instance, child processes) see the same home."""
    silence_telemetry()
    os.environ.update({"FALAJ_HOME": str(settings.home.root), "DAGSTER_HOME": str(settings.home.instance)})


def read_settings() -> Settings:
    """Read the environment; every default is the laptop's."""
    root = Path(os.environ.get("FALAJ_HOME") or CHECKOUT / ".falaj").expanduser().absolute()
    return Settings(
        home=Home(root),
        environment=os.environ.get("FALAJ_ENV", "laptop"),
        defs_root=Path(os.environ.get("FALAJ_DEFS") or CHECKOUT / "platform_assets" / "defs").absolute(),
        webhook_url=os.environ.get("FALAJ_WEBHOOK_URL") or None,
        serve_port=_read_port("FALAJ_SERVE_PORT", 8151),
        web_port=_read_port("FALAJ_WEB_PORT", 3000),
        home_is_chosen=bool(os.environ.get("FALAJ_HOME")),
    )


def _read_port(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
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
    return {**os.environ, **QUIET, **ours, "DAGSTER_HOME": str(settings.home.instance), **extra}
