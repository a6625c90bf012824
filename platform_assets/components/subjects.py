"""A person's rows all over the platform: found, erased with a proof, exported. What names a person in a table is stages.governance's."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.fresh_records import refresh_records
from platform_assets.components.monitoring_steps import take_segments
from platform_assets.components.retraining_history import WANTED
from platform_assets.errors import DataError, ReleaseError, ServingError, StateError
from platform_assets.networks.shards import LIST_FILE, SPLITS
from platform_assets.stages.governance import erasure as whose
from resources.erasures import Erasure
from resources.word_search import find_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.subjects import Marks
    from resources.parts import Parts

ERASED, BEGAN, EXPORTED, RETAINED = "erasure", "erasure_began", "subject_exported", "retention"
SUBJECTS = "subjects"  # subject of their entries in the audit log
_FEWEST_LETTERS = 6  # a shorter value stands in any file by chance
_RAW = ("ingested", "validated")
_PROTECTED = ("protected", "quarantined")


def ask_erasure(parts: Parts, subject: str, *, by: str) -> Erasure:
    """Write down that a person is to be forgotten, sealed; nothing is changed yet. A dataset must say what names a person."""
    _datasets(parts)
    mark = whose.mark_of(subject, key=parts.pseudonym_key)
    return parts.erasures.begin(Erasure(mark, subject, by, datetime.now(tz=UTC).isoformat(timespec="seconds")))


def erase(parts: Parts, instance: dg.DagsterInstance, erasure: Erasure) -> dict[str, Any]:
    """Erase a person step by step, each written down when it is done; prove it by search; say which models learnt from them.

    Killed anywhere, the next call goes on. Raises StateError where the proof finds something; then the journal stays, too.
    """
    erasures = parts.erasures
    if erasure.found is None:
        erasure = erasures.keep(replace(erasure, found=_find(parts, erasure.subject)))
    found = erasure.found or {}
    erasures.forget(erasure.mark, datasets=list(found["keys"]))
    if not _entries(parts, BEGAN, erasure):
        parts.audit.append(BEGAN, subject=SUBJECTS, actor=erasure.asked_by, detail=_detail(erasure))
    for step, work in _steps(parts, erasure):
        if step not in erasure.done:
            erasure = erasures.advance(erasure, step, work())
    refresh_records(parts, instance, why=f"erasure {erasure.mark[:12]}")
    left = prove(parts, erasure)
    if left:
        raise StateError(f"erasure {erasure.mark[:12]} is not proven, it is still in: {', '.join(left)}; `falaj erase` goes on with it")
    result = {
        **_detail(erasure), "removed": erasure.counts, "models": found["models"],
        "training_sets": found["training_sets"], "versions_gone": found["tables"],
        "proof": "searched all tables, training sets, online values, queues, files and databases: nothing",
    }  # fmt: skip
    if not _entries(parts, ERASED, erasure):
        parts.audit.append(ERASED, subject=SUBJECTS, actor=erasure.asked_by, detail=result)
    _ask_retraining(parts, erasure)
    erasures.end(erasure.mark)
    return result


def export(parts: Parts, subject: str, *, by: str) -> dict[str, Any]:
    """Return everything that is held of a person, as values that JSON can hold; the log says that it was asked, and how much it was."""
    marks = dict(_all_marks(parts, subject, keys_of={name: _keys(parts, spec, subject) for name, spec in _datasets(parts).items()}))
    tables = {}
    for table, named in marks.items():
        pin = parts.tables.pin(table)
        if pin is not None:
            rows = parts.tables.read(pin)
            tables[table] = rows.filter(whose.matching(rows, named)).to_pylist()
    held = {table: rows for table, rows in tables.items() if rows}
    found = _find(parts, subject)
    mark = whose.mark_of(subject, key=parts.pseudonym_key)
    rows = sum(len(one) for one in held.values())
    parts.audit.append(EXPORTED, subject=SUBJECTS, actor=by, detail={"mark": mark, "rows": rows, "tables": sorted(held)})
    return {
        "made_at": datetime.now(tz=UTC).isoformat(timespec="seconds"), "tables": held, "models_that_learnt_from_it": found["models"],
        "purposes": {name: model.purpose for name, model in parts.catalogue.models.items() if model.dataset in found["keys"]},
    }  # fmt: skip


def prove(parts: Parts, erasure: Erasure) -> list[str]:
    """Search every place again; return those where the person still is."""
    assert erasure.found is not None
    left = [table for table, marks in _all_marks(parts, erasure.subject, keys_of=erasure.found["keys"]) if _rows(parts, table, marks)]
    held = {key for some in erasure.found["keys"].values() for key in some}
    left += [f"artefact {digest[:12]}" for digest in parts.artefacts.digests() if held and _holds(parts, digest, erasure.found["keys"])]
    online = _online_entities(parts, erasure.subject, erasure.found["keys"])
    left += [f"online values of {view}" for view, entities in online if parts.features.held(view, entities)]
    if not held and not erasure.found["tables"]:  # a name that stands for nobody here cannot be told from a word
        return left
    return left + _words(parts, [erasure.subject, whose.pseudonym_of(erasure.subject, key=parts.pseudonym_key)])


def erased_training_sets(parts: Parts) -> dict[str, dict[str, Any]]:
    """Return training sets that an erasure or a retention took away, by digest, with the entry of the audit log that says so."""
    places = [SUBJECTS, *(f"dataset/{name}" for name in parts.catalogue.datasets)]
    entries = [entry for place in places for entry in parts.audit.entries(subject=place) if entry["action"] in (ERASED, RETAINED)]
    return {digest: entry for entry in entries for digest in entry["detail"]["training_sets"]}


def _datasets(parts: Parts) -> dict[str, DatasetSpec]:
    found = {name: spec for name, spec in parts.catalogue.datasets.items() if spec.subject}
    if not found:
        raise DataError("no dataset declares `subject`, the column that names a person; declare it in the dataset's defs.yaml")
    return found


def _find(parts: Parts, subject: str) -> dict[str, Any]:
    """Look for a person everywhere before anything is changed: rows' keys, tables, training sets, and models that learnt from those."""
    keyed = {name: _keys(parts, spec, subject) for name, spec in _datasets(parts).items()}
    tables = {table: count for table, marks in _all_marks(parts, subject, keys_of=keyed) if (count := _rows(parts, table, marks))}
    sets = [digest for digest in parts.artefacts.digests() if _holds(parts, digest, keyed)]
    return {"keys": keyed, "tables": tables, "training_sets": sets, "models": _learnt(parts, sets)}


def _keys(parts: Parts, dataset: DatasetSpec, subject: str) -> list[str]:
    raw = [(keys.dataset_key(dataset.name, state), whose.raw_marks(dataset, subject)) for state in _RAW]
    hidden = whose.protected_marks(dataset, subject, keys=(), key=parts.pseudonym_key)
    looked = [*raw, *((keys.dataset_key(dataset.name, state), hidden) for state in _PROTECTED)]
    found = [parts.tables.search(keys.table_name(key), marks, columns=[dataset.key])[dataset.key].to_pylist() for key, marks in looked]
    return sorted({key for some in found for key in some if key is not None})


def _all_marks(parts: Parts, subject: str, *, keys_of: dict[str, list[str]]) -> Iterator[tuple[str, Marks]]:
    """Yield every table that may hold a person, and what names them there."""
    secret = parts.pseudonym_key
    for name, dataset in _datasets(parts).items():
        own = keys_of.get(name, [])
        for state in _RAW:
            raw = whose.raw_marks(dataset, subject)
            yield (
                keys.table_name(keys.dataset_key(name, state)),
                replace(raw, equal={**raw.equal, **({dataset.key: tuple(own)} if own else {})}),
            )
        for state in _PROTECTED:
            yield keys.table_name(keys.dataset_key(name, state)), whose.protected_marks(dataset, subject, keys=own, key=secret)
        for view in dataset.views:
            yield keys.table_name(keys.features_key(name, view)), whose.view_marks(dataset, view, subject, keys=own, key=secret)
    for model in parts.catalogue.models:
        dataset = parts.catalogue.dataset_of(model)
        if dataset.subject:
            marks = whose.log_marks(subject, keys=keys_of.get(dataset.name, []), key=secret)
            yield keys.table_name(keys.model_key(model, "production_log")), marks


def _steps(parts: Parts, erasure: Erasure) -> Iterator[tuple[str, Any]]:
    assert erasure.found is not None
    subject, keyed = erasure.subject, erasure.found["keys"]
    for model in parts.catalogue.models:
        yield f"segments of {model}", lambda model=model: _take(parts, model)
    for table, marks in _all_marks(parts, subject, keys_of=keyed):
        yield table, lambda table=table, marks=marks: parts.tables.erase(table, marks)
    yield "online values", lambda: _forget_online(parts, subject, keyed)
    texts = [subject, whose.pseudonym_of(subject, key=parts.pseudonym_key), *(key for some in keyed.values() for key in some)]
    yield "events", lambda: parts.inbox.erase(texts) + parts.outbox.erase(texts)
    yield "training sets", lambda: _remove_sets(parts, erasure.found["training_sets"] if erasure.found else [])


def _take(parts: Parts, model: str) -> int:
    with contextlib.suppress(ServingError):  # a stopped server has closed its segments, which the proof looks into
        return take_segments(model, parts)
    return 0


def _forget_online(parts: Parts, subject: str, keyed: dict[str, list[str]]) -> int:
    return sum(parts.features.forget(view, entities) for view, entities in _online_entities(parts, subject, keyed))


def _online_entities(parts: Parts, subject: str, keyed: dict[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield every view, and the entities in it that are the person's."""
    for name, dataset in _datasets(parts).items():
        for view in dataset.views:
            marks = whose.view_marks(dataset, view, subject, keys=keyed.get(name, []), key=parts.pseudonym_key)
            yield keys.view_name(name, view), [value for values in marks.equal.values() for value in values]


def _remove_sets(parts: Parts, digests: list[str]) -> int:
    import shutil

    for digest in digests:
        parts.artefacts.remove(digest)
    if digests:
        shutil.rmtree(parts.settings.home.cache, ignore_errors=True)  # encoded shards by content: what is gone is made again
    return len(digests)


def _rows(parts: Parts, table: str, marks: Marks) -> int:
    return parts.tables.search(table, marks, columns=[]).num_rows if marks.columns else 0


def _holds(parts: Parts, digest: str, keyed: dict[str, list[str]]) -> bool:
    """Whether a training set holds one of these rows; shards carry the key of each."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = parts.artefacts.peek(digest)
    if not (folder / LIST_FILE).is_file():
        return False
    schema = json.loads((folder / "schema.json").read_bytes())
    wanted = pa.array([key for some in keyed.values() for key in some], pa.string())
    for file in (file for split in SPLITS for file in sorted((folder / split).glob("*.parquet"))):
        found = pq.read_table(file, columns=[schema["key"]])[schema["key"]].cast(pa.string())
        if pc.any(pc.is_in(found, value_set=wanted)).as_py():
            return True
    return False


def _learnt(parts: Parts, sets: list[str]) -> dict[str, list[str]]:
    """Return the versions of each model that were trained on one of these training sets, or began with the weights of one that was."""
    found: dict[str, list[str]] = {}
    for model in parts.catalogue.models:
        touched: set[str] = set()  # a champion's training is older than what began with it, and the log is in order
        for entry in parts.audit.entries(subject=f"model/{model}"):
            if entry["action"] != "release":
                continue
            with contextlib.suppress(ReleaseError):
                files = parts.releases.open(entry["detail"]["digest"])
                if "lineage.json" not in files.files:
                    continue
                lineage = json.loads(files["lineage.json"])
                if lineage["training_set"] in sets or lineage["warm_start"] in touched:
                    touched.add(lineage["training"])
                    found.setdefault(model, []).append(entry["detail"]["digest"][:12])
    return {model: list(dict.fromkeys(versions)) for model, versions in found.items()}


def _ask_retraining(parts: Parts, erasure: Erasure) -> None:
    assert erasure.found is not None
    for model, versions in erasure.found["models"].items():
        wanted = [entry for entry in parts.audit.entries(subject=f"model/{model}") if entry["action"] == WANTED]
        if any(entry["detail"].get("erasure") == _id(erasure) for entry in wanted):
            continue
        now = parts.clock.now(parts.catalogue.models[model].dataset).isoformat()
        why = f"rows that versions {', '.join(versions)} learnt from were erased (erasure {erasure.mark[:12]})"
        detail = {"trigger": "erasure", "why": why, "at": now, "erasure": _id(erasure)}
        parts.audit.append(WANTED, subject=f"model/{model}", actor=erasure.asked_by, detail=detail)


def _words(parts: Parts, texts: list[str]) -> list[str]:
    """Return files of the home, and columns of a team's databases, in which one of these texts stands as a word."""
    long = [text for text in texts if len(text) >= _FEWEST_LETTERS]
    spelt = list(dict.fromkeys([*long, *(json.dumps(text)[1:-1] for text in long)]))  # in JSON a name may be spelt by numbers
    return [*_files(parts, spelt), *parts.find_in_servers(spelt)] if spelt else []


def _files(parts: Parts, texts: list[str]) -> list[str]:
    """Return files of the home. Keys, journals and sealed releases are left out, and homes of tenants, each of which erases by itself."""
    home = parts.settings.home
    apart = (home.keys, home.erasures, home.releases, home.tenants)
    return find_words(home.root, texts, apart=apart)


def _entries(parts: Parts, action: str, erasure: Erasure) -> list[Any]:
    return [e for e in parts.audit.entries(subject=SUBJECTS) if e["action"] == action and e["detail"].get("erasure") == _id(erasure)]


def _id(erasure: Erasure) -> str:
    return f"{erasure.mark[:16]}@{erasure.asked_at}"


def _detail(erasure: Erasure) -> dict[str, Any]:
    """What the log may hold: the keyed hash, never a value, nor the keys of rows."""
    assert erasure.found is not None
    rows = {name: len(some) for name, some in erasure.found["keys"].items()}
    return {"erasure": _id(erasure), "mark": erasure.mark, "asked_at": erasure.asked_at, "rows": rows}
