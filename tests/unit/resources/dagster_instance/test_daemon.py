"""The daemon's code servers stay for as long as they live and the code is as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon import controller

from resources.dagster_instance.daemon import SteadyServers, SteadyWorkspace, _steady

CODE = "import dagster as dg\n\n\n@dg.op\ndef rest():\n    pass\n\n\n@dg.job\ndef rests():\n    rest()\n"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "defs").mkdir()
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FALAJ_DEFS", str(tmp_path / "defs"))
    with dg.instance_for_test(temp_dir=str(tmp_path)) as found:
        yield found


@pytest.fixture
def servers(instance: dg.DagsterInstance) -> Iterator[SteadyServers]:
    with _steady(instance) as found:
        yield found


def origin(folder: Path, code: str = CODE) -> ManagedGrpcPythonEnvCodeLocationOrigin:
    (folder / "code.py").write_text(code)
    target = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(folder / "code.py"), working_directory=str(folder))
    return ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name="here")


def test_a_server_is_kept_until_the_code_changes_or_it_dies(servers: SteadyServers, tmp_path: Path) -> None:
    here = origin(tmp_path)

    def ask() -> str | None:
        servers.clear_all_grpc_endpoints()  # as the daemon does each minute
        return servers.get_grpc_endpoint(here).socket

    first = ask()
    assert ask() == first
    (tmp_path / "defs" / "more.yaml").write_text("# a change")
    second = ask()
    assert second != first
    assert ask() == second
    entry = servers.get_grpc_server_entry(here)
    os.kill(entry.process.server_process.pid, 9)
    entry.process.server_process.wait()
    assert ask() != second


def test_what_a_location_says_is_asked_again_of_another_server_only(
    servers: SteadyServers, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    file = tmp_path / "code.py"
    file.write_text(CODE)
    target = PythonFileTarget(str(file), attribute=None, working_directory=str(tmp_path), location_name="here")

    def jobs() -> list[str]:
        servers.clear_all_grpc_endpoints()  # as the daemon does each minute, both
        workspace.refresh_workspace()
        location = workspace.create_request_context().get_code_location("here")
        return [job.name for repository in location.get_repositories().values() for job in repository.get_all_jobs()]

    with SteadyWorkspace(instance, target, grpc_server_registry=servers) as workspace:
        known = workspace.get_current_workspace()
        assert jobs() == ["rests"]
        assert workspace.get_current_workspace() is known, "nothing was asked again"
        file.write_text(CODE.replace("rests", "sleeps"))
        (tmp_path / "defs" / "more.yaml").write_text("# a change")
        assert jobs() == ["sleeps"]


def test_the_daemon_takes_them_from_here() -> None:
    """It has no setting for it: a version that calls them otherwise is noticed."""
    source = Path(controller.__file__).read_text()
    assert "create_daemon_grpc_server_registry(instance, code_server_log_level)" in source
    assert "            WorkspaceProcessContext(\n" in source
