"""Regressions of the live release's service: from the server's own figures to a check and a notice, each told under one key."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dagster as dg

from platform_assets import keys
from platform_assets.components.service_watch import alert_service, check_service, watch_service
from platform_assets.errors import ServingError
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import RolloutVerdict
from resources.testing.serving import MemoryServing
from resources.testing.state import RecordingNotifier

LIVE, OTHER = "a" * 64, "b" * 64
MODEL = ModelSpec.model_validate({
    "name": "m", "owner": "team:a", "purpose": "Predict y for the tests", "dataset": "d", "features": {"views": ["v"]},
    "target": {"column": "y", "kind": "binary"}, "training": {"architecture": "tabular_mlp"},
})  # fmt: skip
KEY = keys.model_key("m", "drift_report")


def put_live():
    serving = MemoryServing({LIVE, OTHER})
    serving.load("m", LIVE)
    serving.set_traffic("m", live=LIVE)
    serving.count("m", LIVE, requests=600, latency_ms=2.0)
    verdict = RolloutVerdict("live", LIVE[:12], None, LIVE, ("live",), None, None, 0.0, 0, "it is live")
    return SimpleNamespace(serving=serving, notifier=RecordingNotifier()), verdict


def test_a_slow_release_fails_its_check_as_a_warning_and_is_told_once_a_figure():
    parts, verdict = put_live()
    service = watch_service(MODEL, parts, (), live=verdict, at="2026-01-01")
    assert check_service(KEY, service).passed
    parts.serving.count("m", LIVE, requests=900, errors=100, latency_ms=20.0)
    service = watch_service(MODEL, parts, service, live=verdict, at="2026-01-02")
    check = check_service(KEY, service)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "p99" in check.description
    assert "the release showed" in check.description
    alert_service(MODEL, parts, service[1:])
    told = {message.key: message.severity for message in parts.notifier.messages}
    assert told == {f"m/service/{LIVE[:12]}/latency_p99": "error", f"m/service/{LIVE[:12]}/errors": "error"}


def test_its_own_rollout_is_what_a_release_is_held_against():
    parts, verdict = put_live()
    parts.serving.count("m", LIVE, requests=600, latency_ms=2.0)
    arm = parts.serving.arms("m")[LIVE]
    parts.serving.set_traffic("m", live=LIVE)
    parts.serving.count("m", LIVE, requests=600, latency_ms=30.0)
    (report,) = watch_service(MODEL, parts, (), live=replace(verdict, challenger=arm), at="2026-01-02")
    assert report.source == "rollout"
    assert [one.what for one in report.regressed] == ["latency_p99"]


def test_where_no_server_answers_or_another_version_does_nothing_is_judged():
    parts, verdict = put_live()
    assert watch_service(MODEL, parts, (), live=replace(verdict, live_digest=OTHER), at="") == ()

    class Gone:
        def arms(self, model):
            raise ServingError(f"no inference server answers for {model}")

    assert watch_service(MODEL, SimpleNamespace(serving=Gone()), (), live=verdict, at="") == ()
    assert check_service(KEY, ()).passed
