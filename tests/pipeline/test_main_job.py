"""`falaj run` from an empty home to a model that retrained itself: what it printed, and what it left."""

from __future__ import annotations

import gc
import json
import re
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
from pipeline.tiny import CANARIES, DATASET, FILED, HISTORY_ROWS, LIVE_ROWS, MODEL, Finished

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.specs.looks import LookLog
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import DriftPointer, RolloutVerdict
from platform_assets.specs.spending import Month
from platform_assets.stages.datasets.simulator import simulate
from platform_assets.stages.serving.traffic import read_state
from resources.ledger import SqliteLedger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
RAW = ("ingested", "validated")  # the two states that hold personal data, before it is protected
PERSONAL = re.compile(rb"@mail\.example|\bG\d{7}\b")


def test_it_ends_well_and_leaves_nothing_running(finished: Finished) -> None:
    assert finished.answer.returncode == 0
    assert finished.left_running == []


def test_its_json_has_the_documented_keys(finished: Finished) -> None:
    assert set(finished.result) == {"models", "refused", "report", "wall_seconds", "peak_rss_bytes", "spend"}
    documented = {
        "name", "live_version", "releases", "holdout", "baseline", "candidates", "drift_found_at_row", "metric_before", "metric_drifted",
        "metric_after", "retrained", "seconds",
    }  # fmt: skip
    explained = {"leading_metric", "rows_served", "gate", "rollout", "retraining"}
    (row,) = finished.result["models"]
    assert documented <= set(row) <= documented | explained
    figures = {"name", "metric", "size_bytes", "cpu_us_b1", "cpu_us_b32", "chosen", "why"}
    for candidate in row["candidates"]:
        assert figures <= set(candidate) <= figures | {"latency_ms_p50", "latency_ms_p99", "drop", "aed_per_million", "on_front"}


def test_its_json_has_sane_values(finished: Finished) -> None:
    (row,) = finished.result["models"]
    assert row["name"] == MODEL
    assert len(row["releases"]) == 2
    assert row["live_version"] == row["releases"][-1]
    assert row["retrained"] is True
    assert row["rows_served"] == LIVE_ROWS
    assert {"auroc", "accuracy", "log_loss"} <= set(row["holdout"]) & set(row["baseline"])
    assert all(0 <= row[name] <= 1 for name in ("metric_before", "metric_drifted", "metric_after"))
    names = [candidate["name"] for candidate in row["candidates"]]
    assert "teacher" in names
    assert all(name.split("-")[0] in {"teacher", "trees", "int8"} for name in names), "only what the declaration allows"
    assert sum(candidate["chosen"] for candidate in row["candidates"]) == 1
    assert all(candidate["size_bytes"] > 0 and candidate["cpu_us_b1"] > 0 and candidate["why"] for candidate in row["candidates"])
    assert {f"model/{state}" for state in keys.MODEL_STATES} <= set(row["seconds"])
    assert all(seconds >= 0 for seconds in row["seconds"].values())
    assert finished.result["wall_seconds"] > 0
    assert 0 < finished.result["peak_rss_bytes"] < 4 * 2**30


def test_the_drift_is_found_where_the_script_puts_it(finished: Finished) -> None:
    """The script changes the world at live row 400; windows have 200 rows."""
    assert finished.result["models"][0]["drift_found_at_row"] == 400


def test_the_table_names_the_live_version_and_the_report(finished: Finished) -> None:
    printed = finished.answer.stdout
    assert finished.result["models"][0]["live_version"] in printed
    assert finished.result["report"] in printed
    assert "Traceback" not in printed


def test_the_report_is_one_file_with_pictures_and_nothing_from_elsewhere(finished: Finished) -> None:
    page = Path(finished.result["report"]).read_text()
    assert page.count("data:image/png;base64,") + page.count("data:image/svg+xml;base64,") >= 5
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", page) == []
    assert "<script src" not in page
    assert finished.result["models"][0]["live_version"] in page


def test_exactly_one_retraining_was_launched_by_the_sensor(finished: Finished) -> None:
    with finished.tiny.instance() as instance:
        runs = instance.get_runs(filters=dg.RunsFilter(job_name=keys.train_job(MODEL)))
    asked = [run for run in runs if run.tags.get("dagster/sensor_name") == keys.DRIFT_SENSOR]
    assert len(runs) == 2
    assert [run.status for run in asked] == [dg.DagsterRunStatus.SUCCESS]
    assert asked[0].tags["falaj/trigger"] == "drift"


def line_of_life(finished: Finished) -> list[dg.AssetKey]:
    """Every asset of the graph but those that run when they are asked for."""
    return [
        key
        for key in finished.tiny.repository().asset_graph.get_all_asset_keys()
        if key.path[-1] not in (keys.SWEEP, keys.AUDIT_REPORT, keys.ERASED, keys.RETENTION)
    ]


def test_every_asset_of_the_graph_is_materialised(finished: Finished) -> None:
    made = line_of_life(finished)
    with finished.tiny.instance() as instance:
        missing = [key.to_user_string() for key in made if instance.get_latest_materialization_event(key) is None]
    assert missing == []
    assert len(made) == len(keys.DATASET_STATES) + 2 + len(keys.MODEL_STATES)


def test_every_check_has_a_result_with_a_sentence(finished: Finished) -> None:
    checks = finished.tiny.repository().asset_graph.asset_check_keys
    with finished.tiny.instance() as instance:
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    assert set(found) == set(checks)
    for record in found.values():
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        assert evaluation.description
    proven = next(key for key in checks if key.name == "live_version_is_proven_by_hash")
    assert found[proven].event.dagster_event.asset_check_evaluation_data.passed


def test_data_versions_stand_on_every_materialisation(finished: Finished) -> None:
    with finished.tiny.instance() as instance:
        events = [instance.get_latest_materialization_event(key) for key in line_of_life(finished)]
    assert all(event.asset_materialization.tags["dagster/data_version"] for event in events)


def test_the_champion_is_the_live_version(finished: Finished) -> None:
    parts = finished.tiny.parts
    live = finished.result["models"][0]["live_version"]
    (number,) = {
        entry["detail"]["mlflow_version"]
        for entry in parts.audit.entries(subject=f"model/{MODEL}")
        if entry["action"] == "release" and entry["detail"]["digest"].startswith(live)
    }
    assert parts.registry.alias(MODEL, "champion") == number
    assert parts.registry.alias(MODEL, "challenger") is None


def test_the_server_kept_the_live_version_on_disk(finished: Finished) -> None:
    state = read_state(finished.tiny.home.serving / "state.json")[MODEL]
    assert state["traffic"]["live"].startswith(finished.result["models"][0]["live_version"])
    assert state["traffic"]["challenger"] is None
    with finished.tiny.instance() as instance:
        verdict = latest_record(instance, keys.model_key(MODEL, "rollout_verdict"), RolloutVerdict)
    assert verdict.live_digest == state["traffic"]["live"]
    assert verdict.stages == ("shadow", "canary 50 %", "live")
    assert verdict.challenger.requests >= 10


def test_the_audit_chain_holds_and_tells_the_whole_story(finished: Finished) -> None:
    audit = finished.tiny.parts.audit
    assert audit.verify() == len(audit.entries())
    entries = audit.entries(subject=f"model/{MODEL}")
    told = Counter(entry["action"] for entry in entries if entry["action"] != "reproduction")  # of another file's tests
    assert told.pop("release_opened") >= 2  # by the server, again when it starts
    assert told == {"gate": 2, "release": 2, "rollout": 2, "retraining": 1, "retraining_outcome": 1}
    launches = [entry for entry in audit.entries() if entry["action"] == "launch" and entry["detail"]["job"] == keys.train_job(MODEL)]
    assert [entry["actor"] for entry in launches] == ["falaj run", keys.DRIFT_SENSOR]


def test_the_ledger_has_the_seconds_of_every_step(finished: Finished) -> None:
    totals = SqliteLedger(finished.tiny.home.state).totals()
    stages = {row["stage"] for row in totals if row["wall_seconds"] > 0}
    assert {f"model/{state}" for state in keys.MODEL_STATES} | {f"dataset/{state}" for state in keys.DATASET_STATES} <= stages


def test_each_training_was_watched_and_shows_what_it_used(finished: Finished) -> None:
    key = dg.AssetKey(keys.model_key(MODEL, "trained"))
    with finished.tiny.instance() as instance:
        shown = instance.get_latest_materialization_event(key).asset_materialization.metadata
        observed = [record.event_log_entry for record in instance.fetch_observations(key, limit=100).records]
        runs = {run.run_id for run in instance.get_runs(filters=dg.RunsFilter(job_name=keys.train_job(MODEL)))}
    assert {"machine", "operators", "data_wait", "right_sizing"} <= set(shown)
    assert "aten::" in shown["operators"].value
    assert {entry.run_id for entry in observed} == runs
    assert all(entry.asset_observation.metadata["memory_gib"].value > 0.1 for entry in observed)
    used = [
        entry.used
        for entry in finished.tiny.parts.ledger.entries(Month.of(time.time()))
        if (entry.stage, entry.outcome) == ("model/trained", "done")
    ]
    assert len(used) == len(runs)
    assert all(one.peak_memory_bytes > 1e8 and one.gpus == 0 for one in used)
    assert {path.name for path in finished.tiny.home.metrics.glob("*.prom")} == {f"drift_{MODEL}.prom", "falaj_home.prom"}  # no training's
    client = finished.tiny.parts.registry._connect()
    logged = client.get_run(shown["mlflow_run"].value)
    assert logged.info.status == "FINISHED"
    assert {"system/cores", "system/memory_gib", "live/samples_per_second"} <= set(logged.data.metrics)


def test_every_live_event_was_answered_once_and_labelled(finished: Finished) -> None:
    parts = finished.tiny.parts
    log = parts.tables.read(parts.tables.pin(keys.table_name(keys.model_key(MODEL, "production_log"))))
    spec = parts.catalogue.datasets[DATASET].source
    live = simulate(spec).slice(HISTORY_ROWS)
    assert sorted(log["key"].to_pylist()) == sorted(live["booking_id"].to_pylist())
    outcomes = dict(zip(live["booking_id"].to_pylist(), live["is_canceled"].to_pylist(), strict=True))
    assert all(actual == str(outcomes[key]) for key, actual in zip(log["key"].to_pylist(), log["actual"].to_pylist(), strict=True))
    assert len(set(log["digest"].to_pylist())) == 2


def test_the_retraining_saw_only_what_was_known(finished: Finished) -> None:
    """Its training set ends before the clock of the verdict that asked for it, not at the end of the stream."""
    with finished.tiny.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(keys.model_key(MODEL, "training_set")))
        drift = latest_record(instance, keys.model_key(MODEL, "drift_report"), DriftPointer)
    asked = next(entry for entry in finished.tiny.parts.audit.entries() if entry["action"] == "retraining")
    assert str(event.asset_materialization.metadata["last_event"].value) <= asked["detail"]["at"]
    assert drift.windows == LIVE_ROWS // 200


def test_the_verdict_says_how_the_retraining_was_made_and_the_release_agrees(finished: Finished) -> None:
    parts = finished.tiny.parts
    (asked,) = (entry["detail"] for entry in parts.audit.entries(subject=f"model/{MODEL}") if entry["action"] == "retraining")
    releases = [e["detail"]["digest"] for e in parts.audit.entries(subject=f"model/{MODEL}") if e["action"] == "release"]
    assert (asked["how"], asked["how_why"]) == ("from_scratch", "no label says yet how much of the champion holds")
    assert asked["learns_from"] == "all rows (split.recent_rows is not set)"
    assert [json.loads(parts.releases.open(digest)["lineage.json"])["warm_start"] for digest in releases] == [None, None]


def test_the_retraining_is_judged_by_what_it_gained_on_the_newest_labels(finished: Finished) -> None:
    parts = finished.tiny.parts
    with finished.tiny.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(keys.model_key(MODEL, "rollout_verdict")))
        verdict = latest_record(instance, keys.model_key(MODEL, "rollout_verdict"), RolloutVerdict)
    shown = event.asset_materialization.metadata
    (told,) = (e["detail"] for e in parts.audit.entries(subject=f"model/{MODEL}") if e["action"] == "retraining_outcome")
    assert told["outcome"] == shown["retraining"].value in {"helped", "did_not_help", "undecided"}
    assert "newest labelled rows it" in told["why"]
    assert shown["against_the_previous"].value in told["why"]
    looks = read_record(LookLog, (parts.artefacts.path(verdict.looks) / "looks.json").read_bytes())
    assert looks.looks[-1].in_favour["errors"] >= looks.in_favour_passes
    assert "| canary 50 % | errors | 0 of" in shown["looks"].value
    assert verdict.live_before not in (None, verdict.live_digest)


def test_no_raw_personal_value_lies_in_any_file(finished: Finished) -> None:
    root, tables = finished.tiny.home.root, finished.tiny.parts.tables
    gc.collect()  # connections of tests before: closing the last one takes a file away that the search would list
    files = [path for path in root.rglob("*") if path.is_file()]
    found = [str(path.relative_to(root)) for path in files if PERSONAL.search(path.read_bytes())]
    found += [str(path.relative_to(root)) for path in files if path.suffix == ".parquet" and PERSONAL.search(_values(path))]
    assert len(files) > 50
    assert found == []
    for state in RAW:  # the first two states hold them, sealed: who has the key reads them, and the search would find them
        rows = tables.read(tables.pin(keys.table_name(keys.dataset_key(DATASET, state))))
        assert PERSONAL.search(repr(rows.slice(0, 50).to_pylist()).encode())


def test_pseudonyms_are_stable_and_say_nothing(finished: Finished) -> None:
    parts = finished.tiny.parts
    rows = parts.tables.read(parts.tables.pin(keys.table_name(keys.dataset_key(DATASET, "protected"))))
    names = rows["guest_id"].to_pylist()
    assert "guest_email" not in rows.column_names
    assert all(re.fullmatch(r"[0-9a-f]{64}", name) for name in names)
    assert len(set(names)) < len(names)  # guests who came again are still one guest


def test_secrets_are_readable_by_their_owner_alone(finished: Finished) -> None:
    secrets = list(finished.tiny.home.keys.iterdir())
    assert secrets
    public = {"tokens.pub.pem", "releases.pub.pem", "audit.pub.pem"}
    assert {path.stat().st_mode & 0o077 for path in (*secrets, finished.tiny.home.keys) if path.name not in public} == {0}


def test_no_secret_is_written_down_or_said(finished: Finished) -> None:
    """Canaries in the environment and in files, and the home's own keys: in no log, table, event, metadata, report or answer."""
    home = finished.tiny.home
    private = [line for path in home.keys.glob("*.key.pem") for line in path.read_bytes().splitlines() if not line.startswith(b"-----")]
    wrapped = [
        value.encode() for path in home.keys.glob("*.keys.json") for value in re.findall(r'"([A-Za-z0-9+/=_-]{40,})"', path.read_text())
    ]
    secrets = [*(value.encode() for value in CANARIES.values()), FILED.encode(), *private, *wrapped]
    secrets += [(home.keys / name).read_bytes().strip() for name in ("pseudonym.key", "session.key") if (home.keys / name).is_file()]
    assert len(secrets) > len(CANARIES) + 3
    assert all(len(secret) >= 16 for secret in secrets)
    any_of = re.compile(b"|".join(map(re.escape, secrets)))
    files = [path for path in home.root.rglob("*") if path.is_file() and home.keys not in path.parents]
    assert [str(path.relative_to(home.root)) for path in files if any_of.search(path.read_bytes())] == []
    assert [str(path) for path in files if path.suffix == ".parquet" and any_of.search(_values(path))] == []
    assert any_of.search(finished.answer.stdout.encode()) is None
    with finished.tiny.instance() as instance:  # as the web UI would show them
        told = [
            repr(instance.all_logs(run.run_id)).encode() + repr(run.tags).encode() + repr(run.run_config).encode()
            for run in instance.get_runs()
        ]
    assert told
    assert [text for text in told if any_of.search(text)] == []


def test_a_second_run_makes_nothing_twice(finished: Finished, tmp_path: Path) -> None:
    """Runs last in this file: it adds to the home."""
    tiny = finished.tiny
    parts = tiny.parts
    log = keys.table_name(keys.model_key(MODEL, "production_log"))
    before, entries = parts.tables.pin(log), len(parts.audit.entries())
    artefacts = {path.name for path in tiny.home.artefacts.rglob("*")}
    answer = tiny.falaj("run", "--json", str(tmp_path / "again.json"))
    again = json.loads((tmp_path / "again.json").read_text())
    assert answer.returncode == 0, answer.stdout
    assert tiny.parts.tables.pin(log) == before
    assert {path.name for path in tiny.home.artefacts.rglob("*")} == artefacts
    added = parts.audit.entries()[entries:]
    assert {entry["action"] for entry in added} <= {"release_opened"}  # the server started again
    assert again["models"][0]["live_version"] == finished.result["models"][0]["live_version"]
    assert again["models"][0]["releases"] == finished.result["models"][0]["releases"]
    assert again["models"][0]["seconds"] == {}
    assert tiny.names() == []


def _values(path: Path) -> bytes:
    import pyarrow.parquet as pq

    return json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
