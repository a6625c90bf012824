"""Dagster's web server on a Unix socket: `python -m resources.dagster_instance.web SOCKET WORKSPACE [PREFIX]`.

It knows no caller, so nothing but the gateway may reach it; Dagster's own command listens on a port, which every user of the machine can.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from platform_assets.logs import start_logging, uvicorn_logging
from resources.settings import read_settings
from resources.sockets import listen

_IDLE_SECONDS = 120  # longer than the gateway keeps a connection: who closes first while the other asks, loses a request


def serve(place: Path, *, workspace: Path, prefix: str = "") -> None:
    """Serve the instance of DAGSTER_HOME until SIGTERM. `prefix` is where the gateway shows it, such as `/hospitality`, or nothing."""
    start_logging("web", read_settings().log_form)
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(
            instance, version=__version__, read_only=False, workspace_load_target=WorkspaceFileTarget([str(workspace)])
        ) as context,
    ):
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
        app = create_app_from_workspace_process_context(context, prefix)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=_IDLE_SECONDS, **uvicorn_logging())
        )
        server.run(sockets=[listen(place)])


if __name__ == "__main__":
    serve(Path(sys.argv[1]), workspace=Path(sys.argv[2]), prefix=sys.argv[3] if len(sys.argv) > 3 else "")  # noqa: PLR2004 - third argument
