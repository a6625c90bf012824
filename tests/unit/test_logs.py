"""Logs as events: a line each, whatever it holds, with whom it speaks of and without secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets import logs
from platform_assets.errors import StateError
from resources.settings import read_settings


def line(message: str, **more) -> str:
    record = logging.LogRecord("a.b", logging.WARNING, "", 0, message, (), None)
    record.__dict__.update(more)
    return logs.JsonLines("steps").format(record)


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_every_message_is_one_line_of_json_that_says_of_whom_it_speaks(message, run, model):
    with logs.bound(run=run, model=model):
        text = line(message, version="v1")
    assert "\n" not in text
    found = json.loads(text)
    assert (found["run"], found["model"], found["version"], found["level"], found["service"]) == (run, model, "v1", "warning", "steps")


CANARY = "canary-5f1d9c"


@pytest.mark.parametrize(
    "text",
    [
        f"connecting to postgresql://falaj:{CANARY}@db/falaj failed",
        f"rediss://:{CANARY}@127.0.0.1:6379/0",
        f"Authorization: Bearer {CANARY}",
        f"authorization=Basic {CANARY}",
        f"the password={CANARY}, it said",
        f'{{"client_secret": "{CANARY}"}}',
        f"AWS_SECRET_ACCESS_KEY={CANARY}",
        f"token: '{CANARY}'",
        f"eyJhbGciOi.eyJ{CANARY}.sig-{CANARY}",
    ],
)
def test_what_looks_like_a_secret_is_in_no_line(text):
    found = line(text, exc_info=(ValueError, ValueError(text), None))
    assert CANARY not in found
    assert "***" in found
    assert CANARY not in logs.hide(text)


def test_sentences_without_secrets_are_left_as_they_are():
    for sentence in (
        "a password stands in the address of db; write it into the file",
        "the store s3://falaj/team at http://127.0.0.1:9000",
        "12:30 a@b",
    ):
        assert logs.hide(sentence) == sentence


def test_a_record_of_dagsters_names_run_step_and_model():
    found = json.loads(line("x", dagster_meta={"run_id": "r", "step_key": "model__two__parts__trained", "job_name": "j"}))
    assert (found["run"], found["step"], found["model"], found["job"]) == ("r", "model__two__parts__trained", "two__parts", "j")
    assert "model" not in json.loads(line("x", dagster_meta={"run_id": "r", "step_key": "dataset__d__ingested"}))


def test_names_hold_inside_alone_and_inner_ones_win():
    with logs.bound(run="a", model="m"):
        with logs.bound(run="b", version=None):
            assert json.loads(line("x"))["run"] == "b"
        assert json.loads(line("x"))["run"] == "a"
    assert "run" not in json.loads(line("x"))


_PROCESS = """
import sys, warnings, logging
from platform_assets import logs
logs.start_logging("trainer", sys.argv[1])
logs.event("for machines", model="m")
logs.say("for both", version="v")
if sys.argv[1] == "json":
    warnings.warn("careful")
    logging.getLogger("dagster").info("as the root does")
    raise RuntimeError("two\\nlines, password=canary-5f1d9c")
"""


def test_a_process_writes_json_where_it_is_told_to_its_last_words_too_and_sentences_else():
    as_json = subprocess.run([sys.executable, "-c", _PROCESS, "json"], capture_output=True, text=True, check=False)
    events = [json.loads(text) for text in as_json.stderr.splitlines()]
    assert [one["event"] for one in events[:2]] == ["for machines", "for both"]
    assert (events[0]["model"], events[1]["version"], events[1]["level"]) == ("m", "v", "error")
    assert "careful" in events[2]["event"]
    assert events[3]["event"] == "as the root does"
    assert (events[4]["event"], events[4]["level"]) == ("ended by RuntimeError", "critical")
    assert "two\nlines, password=***" in events[4]["error"]
    assert as_json.returncode == 1
    as_text = subprocess.run([sys.executable, "-c", _PROCESS, "text"], capture_output=True, text=True, check=False)
    assert (as_text.stderr, as_text.returncode) == ("for both\n", 0)


def test_the_form_is_a_setting_and_json_in_a_pod(monkeypatch):
    assert read_settings().log_form == logs.TEXT
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert read_settings().log_form == logs.JSON
    monkeypatch.setenv("FALAJ_LOG", "text")
    assert read_settings().log_form == logs.TEXT
    for name, value, said in (
        ("FALAJ_LOG", "xml", "FALAJ_LOG is 'xml'; right would be text or json"),
        ("FALAJ_TRACES", "collector:4318", "FALAJ_TRACES is 'collector:4318'; right would be the address of an OTLP receiver"),
        ("FALAJ_TRACES_SHARE", "2", "FALAJ_TRACES_SHARE is '2'; right would be a share from 0 to 1"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(StateError, match=said):
                read_settings()
