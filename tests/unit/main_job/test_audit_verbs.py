"""The audit log's verbs: it is verified, witnessed, and says what was in production at a time."""

import json
import sqlite3
from datetime import datetime, timedelta

import pytest
from typer.testing import CliRunner

from platform_assets import cli
from platform_assets.errors import DataError, StateError
from platform_assets.main_job import audit_verbs
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.testing.released import MODEL, write_released_home
from resources.testing.serving import TINY_SCHEMA, _tiny_graph


@pytest.fixture
def settings(tmp_path):
    return write_released_home(tmp_path, schema=TINY_SCHEMA, graph=_tiny_graph(seed=1, breaks_at=None))


def log_of(settings):
    return SqliteAuditLog(settings.home.state, signer=HeadSigner(settings.home.keys))


def live_at(settings, moment):
    (row,) = audit_verbs.read_live_at(settings, moment.isoformat())["models"]
    return row


def test_what_was_live_is_what_the_last_decision_before_that_time_made_live(settings):
    log = log_of(settings)
    log.append("rollout", subject=f"model/{MODEL}", actor="run/2", detail={"outcome": "live", "live": "b" * 64})
    log.append("release", subject=f"model/{MODEL}", actor="run/3", detail={"digest": "c" * 64})
    log.append("rollback", subject=f"model/{MODEL}", actor="falaj rollback", detail={"live": "a" * 64})
    first, second, third = [entry for entry in log.entries() if entry["action"] in ("rollout", "rollback")]
    times = [datetime.fromisoformat(entry["at"]) for entry in (first, second, third)]
    assert live_at(settings, times[0] - timedelta(seconds=1))["live"] is None
    assert live_at(settings, times[0])["live"] == first["detail"]["live"]
    assert live_at(settings, times[1])["live"] == live_at(settings, times[2] - timedelta(microseconds=1))["live"] == "b" * 64
    found = live_at(settings, times[2] + timedelta(days=1))
    assert (found["live"], found["by"], found["action"], found["entry"]) == ("a" * 64, "falaj rollback", "rollback", third["seq"])


def test_the_same_moment_in_another_zone_is_the_same_moment(settings):
    (entry,) = [one for one in log_of(settings).entries() if one["action"] == "rollout"]
    moment = datetime.fromisoformat(entry["at"])
    dubai = audit_verbs.read_live_at(settings, f"{moment.replace(tzinfo=None) + timedelta(hours=4)}+04:00")
    assert dubai["models"][0]["live"] == entry["detail"]["live"]


@pytest.mark.parametrize("text", ["yesterday", "14:05", ""])
def test_a_text_that_is_no_time_is_refused(settings, text):
    with pytest.raises(DataError, match="is no time; write it as"):
        audit_verbs.read_live_at(settings, text)


def test_a_log_that_was_changed_gives_no_answer(settings):
    with sqlite3.connect(settings.home.state) as state:
        state.execute("DROP TRIGGER audit_no_update")
        state.execute("UPDATE audit SET detail = replace(detail, 'live', 'dead') WHERE action = 'rollout'")
    with pytest.raises(StateError, match="entry 2"):
        audit_verbs.read_live_at(settings, "2030-01-01")


def test_a_checkpoint_holds_for_the_log_that_goes_on_and_the_command_says_so(settings, tmp_path, monkeypatch):
    file = tmp_path / "checkpoint.json"
    assert audit_verbs.take_checkpoint(settings, file)["length"] == 2
    log_of(settings).append("more", subject="m", actor="x", detail={})
    monkeypatch.setenv("FALAJ_HOME", str(settings.home.root))
    monkeypatch.setenv("FALAJ_DEFS", str(settings.defs_root))
    found = CliRunner().invoke(cli.app, ["audit", "verify", "--checkpoint", str(file)])
    assert found.exit_code == 0
    assert "3 entries of the audit log hold and are signed and go on from" in found.output
    file.write_text(json.dumps({**json.loads(file.read_text()), "hash": "0" * 64}))
    assert isinstance(CliRunner().invoke(cli.app, ["audit", "verify", "--checkpoint", str(file)]).exception, StateError)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"length": 1, "hash": "x", "signature": "zz"}'])
def test_a_file_that_is_no_checkpoint_is_named(settings, tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(StateError, match="is no checkpoint of an audit log"):
        audit_verbs.verify_audit(settings, checkpoint=tmp_path / "c.json")


def test_a_report_is_made_of_the_log_written_whole_and_written_into_the_log(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("FALAJ_HOME", str(settings.home.root))
    monkeypatch.setenv("FALAJ_DEFS", str(settings.defs_root))
    page = tmp_path / "a" / "report.html"
    found = CliRunner().invoke(cli.app, ["audit", "report", MODEL, "--html", str(page)])
    assert found.exit_code == 0, found.output
    report = json.loads(page.with_suffix(".json").read_text())
    (row,) = report["versions"]
    assert row["decision"] == "rollout"
    assert row["live"] in page.read_text()
    assert "is no certificate" in found.output
    newest = log_of(settings).entries()[-1]
    assert (newest["action"], newest["detail"]["to"]) == ("audit_report", report["to"])
    later = audit_verbs.write_report(settings, MODEL, since="2100-01-01", until="2100-02-01", html=page, json_file=None)["report"]
    assert [row["decision"] for row in later["versions"]] == ["rollout"]  # what was in force when the period began
    assert "versions" in later["evidence"]
    assert "log" in later["evidence"]
    with pytest.raises(DataError, match="a period ends after it began"):
        audit_verbs.write_report(settings, MODEL, since="2026-02-01", until="2026-01-01", html=page, json_file=None)
