"""Dagster's daemon, with code servers that stay: `python -m resources.dagster_instance.daemon run -w workspace.yaml`.

Dagster's own starts every code server anew each minute, whatever has changed: six CPU seconds here, more with every model, for as long
as the platform is up. Here a server is left alone while it lives and the code is as it was when it started, and is not asked again for
what it has said already.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.remote_representation.grpc_server_registry import ErrorRegistryEntry, GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon import controller
from dagster._daemon.cli import main

from platform_assets.logs import JSON, start_logging
from resources.dagster_instance.code import stamp_code
from resources.dagster_instance.engines import keep_engines
from resources.dagster_instance.together import write_together
from resources.dagster_instance.warm_launcher import warm_up
from resources.settings import read_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._core.remote_origin import CodeLocationOrigin
    from dagster._grpc.constants import GrpcServerCommand


class SteadyServers(GrpcServerRegistry):
    """The daemon's code servers. The daemon asks it each minute to forget them; it does so where there is a reason."""

    def __init__(self, instance_ref: Any, server_command: GrpcServerCommand, **given: Any) -> None:
        self._stamp = stamp_code(read_settings())
        super().__init__(instance_ref, server_command, **given)

    def clear_all_grpc_endpoints(self) -> None:
        """Forget the servers where the code has changed, or one has ended or never came up."""
        stamp = stamp_code(read_settings())
        with self._lock:
            entries = self._active_entries.values()
            ended = any(isinstance(entry, ErrorRegistryEntry) or entry.process.server_process.poll() is not None for entry in entries)
        if ended or stamp != self._stamp:
            self._stamp = stamp
            super().clear_all_grpc_endpoints()


class SteadyWorkspace(WorkspaceProcessContext):
    """What the daemon knows of its locations, with all assets and jobs. It asks for that each minute; it is told anew by another server."""

    def refresh_workspace(self) -> None:
        """Ask the servers, unless all that were asked before are there yet."""
        if not all(self._stands(origin) for origin in self._origins):
            super().refresh_workspace()

    def _stands(self, origin: CodeLocationOrigin) -> bool:
        known = self.get_current_workspace().code_location_entries.get(origin.location_name)
        location = known.code_location if known else None
        if not isinstance(location, GrpcServerCodeLocation) or not isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
            return False
        if isinstance(self._grpc_server_registry.get_grpc_server_entry(origin), ErrorRegistryEntry):
            return False
        now = self._grpc_server_registry.get_grpc_endpoint(origin)  # each server has a socket of its own, named at random
        return (now.socket, now.port) == (location.socket, location.port)


def _steady(instance: DagsterInstance, code_server_log_level: str = "INFO") -> SteadyServers:
    return SteadyServers(
        instance.get_ref(),
        controller.GrpcServerCommand.API_GRPC,
        heartbeat_ttl=controller.DAEMON_GRPC_SERVER_HEARTBEAT_TTL,
        startup_timeout=instance.code_server_process_startup_timeout,
        additional_timeout_msg=controller.INCREASE_TIMEOUT_DAGSTER_YAML_MSG,
        log_level=code_server_log_level,
        wait_for_processes_on_shutdown=instance.wait_for_local_code_server_processes_on_shutdown,
    )


def _write_json(handler: str = "default", formatter: str = "json", log_level: str | int = "INFO") -> None:
    """Instead of Dagster's own form of logs; the level is whatever was asked for."""
    del handler, formatter
    start_logging("daemon", JSON)
    logging.getLogger("dagster").setLevel(log_level)


if __name__ == "__main__":
    if read_settings().log_form == JSON:
        controller.configure_loggers = _write_json
    controller.create_daemon_grpc_server_registry = _steady  # the daemon has no setting for it
    controller.WorkspaceProcessContext = SteadyWorkspace  # type: ignore[misc]
    keep_engines()
    write_together()
    warm_up()
    main()
