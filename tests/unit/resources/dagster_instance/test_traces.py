"""Where runs stand in traces: from the launch that a sensor asked for, over its run, steps and trainer, to the release that is served."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from otlp_receiver import run_receiver
from supervised import DEFS

from platform_assets.components.step import Outcome, build_step
from platform_assets.components.training_command import TrainingJob, _told
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.stages.placement.binding import Binding
from platform_assets.tracing import stop_tracing, traceparent
from resources.dagster_instance.traces import TRACE_TAG, launching, running
from resources.parts import build_parts
from resources.settings import Home, Settings
from resources.trace_settings import TraceSettings

MODEL = "tiny_cancellations"


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """Parts of a home that traces, and the spans that it sends; what reads its settings from the environment finds the same."""
    with run_receiver() as (url, spans):
        for name, value in {"FALAJ_TRACES": url, "FALAJ_HOME": str(tmp_path / "home"), "FALAJ_DEFS": str(DEFS)}.items():
            monkeypatch.setenv(name, value)
        settings = Settings(home=Home(tmp_path / "home"), environment="laptop", defs_root=DEFS, webhook_url=None, serve_port=0, web_port=0)
        yield build_parts(replace(settings, traces=TraceSettings(url)), load_catalogue(DEFS)), spans
        stop_tracing()


def build_asset(state: str, work):
    binding = Binding(tags={}, pool=None)
    return build_step(
        ["model", MODEL, state], work, deps=[], group="g", description="d", owner="team:x", kinds=set(), code_version="1", binding=binding
    )


def train_nothing(step) -> Outcome:
    """Start the trainer as a step does; it finds no training plan, says so and ends."""
    job = TrainingJob(step.parts.catalogue.models[MODEL], Path(), "cpu")
    told = _told(step, job)
    folder = step.parts.settings.home.root
    command = [sys.executable, "-m", "platform_assets.stages.training", "--data", "x", "--spec", "nowhere", "--out", str(folder / "out")]
    ended = subprocess.run([*command, *told], capture_output=True, text=True, check=False)
    assert "there is no such file" in ended.stderr
    return Outcome({"a": 1}, "v")


def release_something(step) -> Outcome:
    """Write down where it is made, as a release's step does."""
    detail = {"digest": "d" * 64, "trace": traceparent()}
    step.parts.audit.append("release", subject=f"model/{MODEL}", actor="run", detail=detail)
    return Outcome({"a": 1}, "v")


def test_one_trace_leads_from_a_sensors_launch_to_trainer_and_release_and_the_server_is_told_of_it(traced):
    parts, spans = traced
    assets = [build_asset("trained", train_nothing), build_asset("release", release_something)]
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"dagster/sensor_name": "drift_found__retrain", "dagster/tick": "7"}
        made = instance.create_run_for_job(job_def=dg.define_asset_job("tiny__train").resolve(asset_graph=_graph(assets)), tags=tags)
        with launching(instance, made):
            pass
        run = instance.get_run_by_id(made.run_id)
        with running(run):
            dg.materialize(assets, resources={"parts": parts}, instance=instance, tags={TRACE_TAG: run.tags[TRACE_TAG]})
    named = {one["name"]: one for one in spans}
    way = ["training process", f"step model/{MODEL}/trained", "run tiny__train", "launch tiny__train"]
    for inner, outer in pairwise(way):
        assert named[inner]["parent"] == named[outer]["id"], (inner, outer)
    assert len({one["trace"] for one in spans}) == 1
    assert [named[name]["service"] for name in way] == ["falaj-trainer", *["falaj-daemon"] * 3], "here in one process"
    assert {"sensor": "drift_found__retrain", "tick": "7", "run": run.run_id}.items() <= named["launch tiny__train"]["attributes"].items()
    release = named[f"step model/{MODEL}/release"]
    told = parts.serving._link(MODEL, "d" * 64)
    assert told["trace"].rpartition("-")[0] == f"00-{release['trace']}-{release['id']}"
    assert parts.serving._link(MODEL, "e" * 64) == {}


def _graph(assets):
    return dg.Definitions(assets=assets, resources={"parts": SimpleNamespace()}).resolve_asset_graph()


def test_a_step_in_a_process_of_its_own_hangs_on_its_launch(traced):
    parts, spans = traced
    where = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    dg.materialize([build_asset("release", release_something)], resources={"parts": parts}, tags={TRACE_TAG: where})
    (one,) = spans
    assert (one["trace"], one["parent"]) == (where[3:35], where[36:52])
