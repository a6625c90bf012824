"""Where what steps print is kept on a cluster: in the home, as on a laptop. A pod's DAGSTER_HOME is its image's, and read-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from resources.settings import read_home


class HomeLogs(LocalComputeLogManager):
    """Named as `compute_logs` in infra/dagster/cluster.yaml: pods of steps write there, the web server's pod reads."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Take no setting: FALAJ_HOME says where."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> HomeLogs:
        """Make it of the environment's home."""
        return cls(base_dir=str(read_home().instance / "storage"), inst_data=inst_data, **config_value)
