"""A person is erased everywhere, whatever is killed meanwhile; the log holds no value of theirs; access answers what is held."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa
import pytest
from persons import OTHER, PERSON, fill
from pipeline.tiny import DATASET, DEFS, MODEL

from platform_assets import keys
from platform_assets.components import subjects
from platform_assets.components.events import act_on
from platform_assets.components.step import RECORD, key_of, latest_record
from platform_assets.errors import StateError
from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.networks.shards import write_training_set
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.events import Delivery, Event
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import Feature, FeatureSchema, InForce
from resources.parts import build_parts
from resources.settings import Home, Settings


@pytest.fixture
def parts(tmp_path):
    settings = Settings(home=Home(tmp_path / "home"), environment="laptop", defs_root=DEFS, webhook_url=None, serve_port=0, web_port=0)
    made = build_parts(settings, load_catalogue(DEFS))
    fill(made)
    return made


def train(parts, tmp_path, booking, number, *, base=None):
    """Store a training set with this booking, and a release that was trained on it, beginning with the weights of training `base`."""
    schema = FeatureSchema(
        (Feature("lead_time", "numeric", "booking", "booking_id"),), "is_canceled", ("0", "1"), "booking_id", "booking_date"
    )
    rows = pa.table(
        {
            "lead_time": [1.0],
            "booking_id": [booking],
            "booking_date": pa.array([datetime(2024, 1, 1)], pa.timestamp("us")),
            "is_canceled": ["0"],
        }
    )
    write_training_set(tmp_path / f"set{number}", {name: iter([rows]) for name in ("train", "calibration", "holdout")}, schema=schema)
    digest = parts.artefacts.put(tmp_path / f"set{number}")
    folder = tmp_path / f"release{number}"
    folder.mkdir()
    (folder / "lineage.json").write_text(json.dumps({"training_set": digest, "training": f"t{number}", "warm_start": base}))
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": MODEL, "candidate": "c", "created": "x", "files": list_files(folder)}))
    release = parts.releases.put(folder)
    parts.audit.append("release", subject=f"model/{MODEL}", actor="t", detail={"digest": release})
    return digest, release


def everything(root):
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and PERSON.encode() in file.read_bytes()}


def test_an_erasure_that_is_killed_after_every_step_ends_in_nothing_left_and_a_proof(parts, tmp_path, monkeypatch):
    theirs, release = train(parts, tmp_path, "bk#1", 1)
    others, _ = train(parts, tmp_path, "bk#2", 2)
    _, later = train(parts, tmp_path, "bk#2", 3, base="t1")
    _, latest = train(parts, tmp_path, "bk#2", 4, base="t3")
    validated = keys.dataset_key(DATASET, "validated")
    old = parts.tables.pin(keys.table_name(validated))
    with dg.DagsterInstance.ephemeral() as instance:
        record = dg.MetadataValue.json(json.loads(to_json(InForce(old, 0))))
        instance.report_runless_asset_event(dg.AssetMaterialization(key_of(validated), metadata={RECORD: record, "note": "kept"}))
        asked = subjects.ask_erasure(parts, PERSON, by="op")
        assert subjects.ask_erasure(parts, PERSON, by="op") == asked  # twice asked is one erasure
        assert PERSON not in str(list((tmp_path / "home" / "erasures").iterdir()))
        advance, kills = parts.erasures.advance, 0

        def kill(*arguments):
            advance(*arguments)
            raise InterruptedError

        monkeypatch.setattr(parts.erasures, "advance", kill)
        while True:
            (journal,) = parts.erasures.under_way()
            try:
                done = subjects.erase(parts, instance, journal)
                break
            except InterruptedError:
                kills += 1
        now = latest_record(instance, validated, InForce)
        kept = instance.get_latest_materialization_event(key_of(validated)).asset_materialization.metadata["note"].value
    assert kills > 10
    assert done["rows"] == {DATASET: 2}
    assert done["models"] == {MODEL: [one[:12] for one in (release, later, latest)]}  # what began with such weights, too
    assert done["training_sets"] == [theirs]
    assert others in parts.artefacts.digests()
    assert everything(tmp_path / "home") == set()
    assert parts.erasures.under_way() == []
    assert (now.pin, kept) == (parts.tables.pin(old.table), "kept")
    assert set(parts.tables.read(now.pin)["guest_id"].to_pylist()) == {OTHER}
    assert [json.loads(one.body)["data"]["why"] for one in parts.inbox.claim("g")] == [OTHER]
    assert parts.tables.read(parts.tables.pin(keys.table_name(keys.model_key(MODEL, "production_log"))))["key"].to_pylist() == ["bk#2"]
    told = [entry for entry in parts.audit.entries() if entry["action"] in ("erasure", "erasure_began", "retraining_wanted")]
    assert [entry["action"] for entry in told] == ["erasure_began", "erasure", "retraining_wanted"]
    assert told[-1]["detail"]["trigger"] == "erasure"
    assert all(word not in json.dumps(told) for word in (PERSON, "bk#1", "bk#3"))
    assert subjects.erased_training_sets(parts)[theirs]["action"] == "erasure"


def test_what_was_erased_does_not_come_back_with_the_next_delivery(parts):
    source = parts.source(DATASET)
    whole = pa.concat_tables(source.read(None))
    person = whole["guest_id"][0].as_py()
    parts.erasures.forget(subjects.whose.mark_of(person, key=parts.pseudonym_key), datasets=[DATASET])
    again = pa.concat_tables(source.read(None))
    assert person not in again["guest_id"].to_pylist()
    assert again.num_rows == whole.num_rows - whole["guest_id"].to_pylist().count(person)


def test_what_is_found_afterwards_is_no_proof_and_the_journal_stays(parts, tmp_path):
    (tmp_path / "home" / "logs").mkdir(parents=True)
    (tmp_path / "home" / "logs" / "some.log").write_text(f"hello {PERSON}!")
    (tmp_path / "home" / "logs" / "other.log").write_text(f"{PERSON}1")  # another person
    journal = subjects.ask_erasure(parts, PERSON, by="op")
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(StateError, match=r"still in: logs/some\.log; `falaj erase` goes on"):
        subjects.erase(parts, instance, journal)
    assert len(parts.erasures.under_way()) == 1


def test_whom_nobody_knows_is_forgotten_though_the_name_is_a_word_that_stands_somewhere(parts):
    parts.audit.append("note", subject="dataset/x", actor="tests", detail={"why": "nobody is asked"})
    with dg.DagsterInstance.ephemeral() as instance:
        result = subjects.erase(parts, instance, subjects.ask_erasure(parts, "nobody", by="tests"))
    assert result["versions_gone"] == {}
    assert parts.erasures.under_way() == []


def test_an_access_request_is_answered_with_all_rows_and_the_log_names_nobody(parts, tmp_path):
    train(parts, tmp_path, "bk#3", 1)
    found = subjects.export(parts, PERSON, by="op")
    counts = {table.rpartition("/")[2]: len(rows) for table, rows in found["tables"].items()}
    assert counts == {"ingested": 2, "validated": 2, "quarantined": 1, "protected": 2, "booking": 2, "production_log": 1}
    assert {row["guest_id"] for row in found["tables"][f"dataset/{DATASET}/ingested"]} == {PERSON}
    assert list(found["models_that_learnt_from_it"]) == [MODEL]
    assert found["purposes"][MODEL]
    (entry,) = [one for one in parts.audit.entries() if one["action"] == "subject_exported"]
    assert PERSON not in json.dumps(entry)
    assert entry["detail"]["rows"] == 10


def test_an_event_asks_for_one_erasure_whose_run_names_nobody(parts):
    event = Event(id="e1", source="/portal", type="falaj.erasure.asked", time=datetime.now(UTC), data={"subject": PERSON})
    asked = [act_on(Delivery("t", event.encode(), attempt), parts, None) for attempt in (1, 2)]
    assert asked[0] == asked[1]
    assert asked[0].job_name == keys.ERASE_JOB
    assert PERSON not in repr(asked[0])
    assert len(parts.erasures.under_way()) == 1


def test_rows_past_their_period_leave_every_version_and_the_log_says_how_many(parts, tmp_path, monkeypatch):
    from datetime import timedelta

    from platform_assets.components import retention

    theirs, _ = train(parts, tmp_path, "bk#1", 1)
    dataset = parts.catalogue.datasets[DATASET].model_copy(update={"retention": timedelta(days=10)})
    parts.clock.advance(DATASET, datetime(2024, 1, 12, 12))  # kept since the 2nd, 12:00
    with dg.DagsterInstance.ephemeral() as instance:
        done = retention.enforce(dataset, parts, instance, actor="t")
        again = retention.enforce(dataset, parts, instance, actor="t")
    days = {
        table: sorted(parts.tables.read(parts.tables.pin(table))["booking_id"].to_pylist())
        for table in parts.tables.tables()
        if "production_log" not in table
    }
    assert set(map(tuple, days.values())) <= {("bk#3", "bk#4"), ("bk#3",)}
    assert done.before == "2024-01-02T12:00:00"
    assert done.training_sets == (theirs,)
    assert sum(done.rows.values()) > 0
    assert (again.rows, again.training_sets) == ({}, ())
    told = [entry["detail"]["rows"] for entry in parts.audit.entries(subject=f"dataset/{DATASET}") if entry["action"] == "retention"]
    assert told == [sum(done.rows.values()), 0]
    assert subjects.erased_training_sets(parts)[theirs]["action"] == "retention"
    assert not parts.tables.search(
        f"dataset/{DATASET}/ingested", subjects.whose.Marks({"booking_id": ("bk#1", "bk#2")}), columns=[]
    ).num_rows


def test_without_a_declared_period_nothing_is_removed_or_said(parts):
    from platform_assets.components import retention

    with dg.DagsterInstance.ephemeral() as instance:
        done = retention.enforce(parts.catalogue.datasets[DATASET], parts, instance, actor="t")
    assert (done.before, done.rows) == ("", {})
    assert not [entry for entry in parts.audit.entries() if entry["action"] == "retention"]
