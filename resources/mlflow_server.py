"""MLflow's server on a Unix socket: `python -m resources.mlflow_server SOCKET PREFIX`, over what the settings name.

It knows no caller, so nothing but the gateway may reach it; MLflow's own command listens on a port.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.logs import start_logging
from resources.parts import database_of
from resources.settings import apply_to_this_process, read_settings
from resources.sockets import listen

if TYPE_CHECKING:
    from resources.settings import Settings

_IDLE_SECONDS = 120  # longer than the gateway keeps a connection: who closes first while the other asks, loses a request


def environment_of(settings: Settings, *, prefix: str) -> dict[str, str]:
    """Return what MLflow's server reads: the database and artefacts of these settings, and under which path the gateway shows it."""
    folder = settings.home.mlflow.absolute()
    return {
        "_MLFLOW_SERVER_FILE_STORE": database_of(settings, "mlflow") or f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": (folder / "artifacts").as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_STATIC_PREFIX": prefix,
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",  # names of hosts and origins are the gateway's to check
    }


def serve(place: Path, *, prefix: str) -> None:
    """Serve until SIGTERM. `prefix` is where the gateway shows it, such as `/mlflow`."""
    settings = read_settings()
    start_logging("mlflow", settings.log_form)
    apply_to_this_process(settings, **environment_of(settings, prefix=prefix))  # MLflow reads it while it is imported
    import uvicorn
    from mlflow.server.fastapi_app import app

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=_IDLE_SECONDS))
    server.run(sockets=[listen(place)])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), prefix=sys.argv[2])
