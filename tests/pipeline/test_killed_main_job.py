"""Whatever ends `falaj run`, and whenever: the next one goes on from what is stored, and nothing is made twice or left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from pipeline.tiny import DATASET, LIVE_ROWS, MODEL, TinyHome, wait_for

from platform_assets import keys
from platform_assets.specs.catalogue import request_columns
from resources.serving import connect, server_is_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(590)]
ENDS_WITHIN_SECONDS = 15


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyHome]:
    home = TinyHome(tmp_path_factory.mktemp("killed") / "home")
    try:
        yield home
    finally:
        home.end_everything()


def test_killed_at_four_moments_it_still_comes_to_the_end(tiny: TinyHome, tmp_path: Path) -> None:
    """One home, killed while rows come in, while candidates are made, in live traffic and in the rollout of the retraining."""
    moments: list[tuple[str, Callable[[TinyHome], bool], int]] = [
        ("rows are validated", lambda home: _made(home, keys.dataset_key(DATASET, "ingested")), signal.SIGKILL),
        ("candidates are made", lambda home: _made(home, keys.model_key(MODEL, "trained")), signal.SIGTERM),
        ("live traffic flows", lambda home: _answered(home) >= 200, signal.SIGKILL),
        ("the retraining is about to roll out", lambda home: _releases(home) >= 2, signal.SIGKILL),
    ]
    for what, reached, number in moments:
        process = tiny.start("run")
        try:
            wait_for(lambda reached=reached, process=process: reached(tiny) or process.poll() is not None, seconds=240, what=what)
            assert process.poll() is None, f"it ended before {what}: {process.stdout.read()}"
            os.kill(process.pid, number)
            out, _ = process.communicate(timeout=ENDS_WITHIN_SECONDS)
        finally:
            process.kill()
        if number != signal.SIGKILL:
            assert process.returncode == 130, out
            assert tiny.names() == []
    answer = tiny.falaj("run", "--json", str(tmp_path / "result.json"))
    assert answer.returncode == 0, answer.stdout
    assert tiny.names() == []
    _check_state(tiny, json.loads((tmp_path / "result.json").read_text()))


def _check_state(tiny: TinyHome, result: dict) -> None:
    parts = tiny.parts
    tables = {str(path.parent.relative_to(tiny.home.tables)) for path in tiny.home.tables.rglob("_delta_log")}
    for table in tables:
        rows = parts.tables.read(parts.tables.pin(table))
        named = next((name for name in ("prediction_id", "booking_id") if name in rows.column_names), None)
        if named is not None:
            assert max(Counter(rows[named].to_pylist()).values(), default=1) == 1, f"{table} has rows twice"
    log = parts.tables.read(parts.tables.pin(keys.table_name(keys.model_key(MODEL, "production_log"))))
    again = [key for key, count in Counter(log["key"].to_pylist()).items() if count > 1]
    assert again == [], "a live event was sent twice"
    assert log.num_rows == LIVE_ROWS
    assert parts.audit.verify() == len(parts.audit.entries())
    row = result["models"][0]
    live = [entry["detail"]["live"] for entry in parts.audit.entries() if entry["action"] in ("rollout", "rollback")][-1]
    assert live.startswith(row["live_version"])
    assert len(row["releases"]) == len(set(row["releases"]))
    with tiny.instance() as instance:
        unfinished = [run for run in instance.get_runs() if not run.is_finished]
    assert unfinished == []
    assert not any((tiny.home.root / "scratch").iterdir()), "half-made folders are left"


def test_the_live_version_answers_after_all_that(tiny: TinyHome, tmp_path: Path) -> None:
    from resources.sources import live_rows

    catalogue = tiny.parts.catalogue
    spec = catalogue.datasets[DATASET]
    columns = sorted(request_columns(catalogue.models[MODEL], spec))
    row = live_rows(spec, tiny.parts.source(DATASET)).slice(0, 1).select(columns)
    server = tiny.start("serve", MODEL)
    try:
        wait_for(lambda: server_is_up(tiny.settings) or server.poll() is not None, seconds=30, what="the server")
        with connect(tiny.settings) as client:
            answer = client.predict(MODEL, row.to_pylist())
        live = tiny.parts.serving.status(MODEL)["live"]
    finally:
        server.terminate()
        server.communicate(timeout=ENDS_WITHIN_SECONDS)
    assert answer["version"] == live[:12]
    assert tiny.names() == []


def test_of_two_at_once_the_second_names_the_first(tmp_path: Path) -> None:
    tiny = TinyHome(tmp_path / "home")
    first = tiny.start("run")
    try:
        wait_for(lambda: (tiny.home.run / "lock").exists() and (tiny.home.run / "lock").read_text(), seconds=30, what="the first")
        second = tiny.falaj("run")
        assert second.returncode == 1
        assert f"held by falaj run (pid {first.pid}" in " ".join(second.stdout.split())
        assert first.poll() is None
        _interrupt(tiny, first)
    finally:
        first.kill()
        tiny.end_everything()


def _interrupt(tiny: TinyHome, process: subprocess.Popen[str]) -> None:
    """Ctrl-C ends it soon, with a sentence and nothing left."""
    wait_for(lambda: len(tiny.processes()) > 1, seconds=60, what="what runs beside")
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=ENDS_WITHIN_SECONDS)
    assert process.returncode == 130, out
    assert "goes on from what is stored" in " ".join(out.split())
    wait_for(lambda: not tiny.names(), seconds=ENDS_WITHIN_SECONDS, what="the end of what ran beside")


def _made(tiny: TinyHome, key: list[str]) -> bool:
    if next(tiny.home.tables.rglob("_delta_log"), None) is None:  # before: two first openers of Dagster's SQLite files break each other
        return False
    with tiny.instance() as instance:
        return instance.get_latest_materialization_event(dg.AssetKey(key)) is not None


def _answered(tiny: TinyHome) -> int:
    pin = tiny.parts.tables.pin(keys.table_name(keys.model_key(MODEL, "production_log")))
    return pin.rows if pin is not None else 0


def _releases(tiny: TinyHome) -> int:
    return sum(entry["action"] == "release" for entry in tiny.parts.audit.entries(subject=f"model/{MODEL}"))
