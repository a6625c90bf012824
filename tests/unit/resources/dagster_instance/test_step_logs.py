"""Where what steps print is kept on a cluster."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml


def test_what_steps_print_lies_in_the_home_wherever_the_instances_file_is(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    logs = yaml.safe_load((checkout / "infra" / "dagster" / "cluster.yaml").read_text())["compute_logs"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"compute_logs": logs, "telemetry": {"enabled": False}}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        path = Path(instance.compute_log_manager.get_captured_local_path(["a-run", "compute_logs", "a-step"], "out"))
    assert path == tmp_path / "home" / "instance" / "storage" / "a-run" / "compute_logs" / "a-step.out"
