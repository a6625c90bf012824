"""Dashboards and alert rules ask for what is really exposed, and Prometheus' own tools accept them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from platform_assets.specs.feed import FeedReport
from platform_assets.specs.records import DriftReport
from platform_assets.stages.monitoring.exposition import HELP as DRIFT
from platform_assets.stages.monitoring.exposition import render_drift
from platform_assets.stages.serving.figures import Figures
from platform_assets.stages.serving.pages import metrics
from platform_assets.stages.telemetry.exposition import HELP as TRAINING
from platform_assets.stages.telemetry.home_page import HELP as HOME

ROOT = Path(__file__).parents[2] / "infra" / "observability"
DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
RULES = ROOT / "rules.yaml"


def queries() -> list[tuple[str, str]]:
    """Every query, with the file it stands in."""
    found = [
        (path.name, target["expr"])
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return found + [(RULES.name, rule["expr"]) for group in groups for rule in group["rules"]]


def exposed() -> set[str]:
    """Names as Prometheus reads them off our pages."""
    server = dict.fromkeys(
        ("cpu_seconds", "peak_resident_bytes", "loaded_bytes", "unloaded_models", "unforeseen_errors", "uptime_seconds", "connections",
         "waiting_rows", "log_waiting_rows", "log_dropped_rows", "log_lost_rows", "log_write_errors", "online_missed_rows", "online_read_errors"),
        1,
    )  # fmt: skip
    page = metrics([_Route()], {**server, "replies": {200: 1}})
    served = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    drift = render_drift(DriftReport(()), FeedReport(), model="m")
    assert {family.name for family in text_string_to_metric_families(drift)} <= set(DRIFT)
    return served | set(DRIFT) | set(TRAINING) | set(HOME) | {"up"}  # `up` is Prometheus' own


class _Arm:
    figures = Figures("v")
    bundle = type("Bundle", (), {"version": "v"})


class _Route:
    model, live, challenger = "m", _Arm, None
    comparison = type("Comparison", (), {"compared_rows": 0, "disagreements": 0, "skipped_requests": 0})


def test_there_is_a_dashboard_of_each_kind() -> None:
    assert [path.stem for path in DASHBOARDS] == ["audit", "drift", "gpu-and-cost", "queue-and-sla", "serving"]
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    assert len(set(uids)) == len(uids)


def test_every_query_asks_for_what_is_exposed() -> None:
    names = exposed()
    for where, query in queries():
        asked = set(re.findall(r"\b(?:falaj_\w+|process_\w+|up)\b", re.sub(r'"[^"]*"', "", query)))
        assert asked, f"{where}: {query} asks for nothing of ours"
        assert asked <= names, f"{where}: {query} asks for {sorted(asked - names)}, which nothing exposes"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt-get install prometheus)")
def test_prometheus_takes_every_query_and_the_rules_fire_as_their_tests_say(tmp_path: Path) -> None:
    written = [{"record": f"query:{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": written}]}))
    assert "SUCCESS" in _tool("promtool", "check", "rules", str(tmp_path / "queries.yaml"))
    _tool("promtool", "check", "config", "--syntax-only", "prometheus.yaml")
    assert "SUCCESS" in _tool("promtool", "test", "rules", "rules.test.yaml")
    rules = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((ROOT / "rules.test.yaml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert rules == fired, "each rule is seen to fire"


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (apt-get install prometheus-alertmanager)")
def test_alertmanager_takes_its_configuration_and_sends_critical_alerts_on() -> None:
    assert "1 receivers" in _tool("amtool", "check-config", "alertmanager.yaml")
    assert _tool("amtool", "config", "routes", "test", "--config.file=alertmanager.yaml", "severity=critical").strip() == "people"


def _tool(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
