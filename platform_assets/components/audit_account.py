"""What lineage and audit log say of a model in a period, gathered for the regulator's report. Nothing is judged here."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.retraining_evidence import read_drift
from platform_assets.components.step import RECORD, key_of
from platform_assets.errors import FalajError, ReleaseError
from platform_assets.measures import METRICS
from platform_assets.specs.account import Account, ReleaseAccount
from platform_assets.specs.record_json import from_mapping, read_record
from platform_assets.specs.records import DriftPointer, FeatureSchema
from platform_assets.specs.spending import Month
from platform_assets.stages.governance.placing import list_places
from platform_assets.stages.governance.residency import trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.specs.model import ModelSpec
    from resources.parts import Parts

_PLATFORM = ("keys", "server", "events/inbox", "subjects")
_NOTED = ("ingested", "validated", "protected")
_DECISIONS = ("rollout", "rollback")


def gather_account(model: ModelSpec, parts: Parts, instance: dg.DagsterInstance, *, since: datetime, until: datetime) -> Account:
    """Return what is known of a model between two times (UTC, aware). The log is verified first: a forged one raises StateError."""
    length = parts.audit.verify()
    dataset = parts.catalogue.dataset_of(model.name)
    entries = [entry for entry in parts.audit.entries() if datetime.fromisoformat(entry["at"]) <= until]
    runs = {
        entry["subject"]
        for entry in entries
        if entry["action"] in ("launch", "refuse", "hold", "approve") and _is_of(entry, model.name, dataset.name)
    }
    subjects = {f"model/{model.name}", f"dataset/{dataset.name}", *_PLATFORM, *runs}
    mine = [entry for entry in entries if entry["subject"] in subjects]
    inside = [entry for entry in mine if datetime.fromisoformat(entry["at"]) >= since]
    before = [entry for entry in mine if entry not in inside and entry["action"] in _DECISIONS and entry["detail"].get("live")]
    live = [entry["detail"]["live"] for entry in (*before[-1:], *inside) if entry["action"] in _DECISIONS and entry["detail"].get("live")]
    report, seen = _drift(model.name, parts, instance, since=since, until=until)
    return Account(
        model=model.name, since=since.isoformat(timespec="seconds"), until=until.isoformat(timespec="seconds"), log_length=length,
        declared=model.model_dump(mode="json"), dataset=dataset.model_dump(mode="json"), entries=inside,
        before=before[-1] if before else None, releases=[_release(digest, parts) for digest in dict.fromkeys(live)],
        way=_way(model.name, parts),
        places=list_places(parts.catalogue, model.name, places=parts.settings.places, on=until.date()),
        windows=[_window(asdict(one)) for one in report.windows[seen:]],
        performance=[asdict(one) for one in report.performance if one.value is not None],
        cost=_cost(model.name, parts, since=since.timestamp(), until=until.timestamp()),
        notes={state: _notes(keys.dataset_key(dataset.name, state), instance, until=until) for state in _NOTED},
    )  # fmt: skip


def _is_of(entry: Mapping[str, Any], model: str, dataset: str) -> bool:
    jobs = (keys.refresh_job(dataset), *(name(model) for name in (keys.train_job, keys.monitor_job, keys.sweep_job, keys.release_job)))
    return model in entry["detail"].get("tags", {}).get("falaj/model", "").split(",") or entry["detail"].get("job") in jobs


def _way(model: str, parts: Parts) -> list[dict[str, str]]:
    way = trace(parts.catalogue, keys.model_key(model, keys.AUDIT_REPORT))
    placed = [(key, *parts.catalogue.profile_of_asset(key)) for key in way]
    return [{"asset": "/".join(key), "profile": name, "jurisdiction": profile.jurisdiction} for key, name, profile in placed]


def _release(digest: str, parts: Parts) -> ReleaseAccount:
    try:
        files = parts.releases.open(digest)
    except ReleaseError as error:
        return ReleaseAccount(digest[:12], digest, refused=str(error))
    read = {
        name: json.loads(files[f"{name}.json"]) if f"{name}.json" in files.files else {} for name in ("declaration", "lineage", "metrics")
    }
    candidates = json.loads(files["candidates.json"]) if "candidates.json" in files.files else {}
    groups = _groups(files, parts, declared=read["declaration"], lineage=read["lineage"]) if read["lineage"] else []
    return ReleaseAccount(digest[:12], digest, **read, candidates=candidates, groups=groups, files=sorted(files.files))


def _groups(files: ReleaseFiles, parts: Parts, *, declared: Mapping[str, Any], lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure a release by the categories that it reads, on its own holdout; nothing where that is gone."""
    import pyarrow.parquet as pq

    from platform_assets.stages.release.groups import measure_groups
    from platform_assets.stages.release.scoring import answer_rows

    try:
        rows = pq.read_table(parts.artefacts.path(lineage["training_set"]) / "holdout")
        found = answer_rows(files, rows)
    except FalajError:
        return []
    schema, kind = read_record(FeatureSchema, files["schema.json"]), declared["model"]["target"]["kind"]
    wanted = declared["model"]["compression"]["groups"] or [feature.name for feature in schema.of_kind("category")]
    columns = [name for name in wanted if name in rows.column_names]
    if found is None:
        return []
    return measure_groups(rows, labels=found[0], probabilities=found[1], columns=columns, kind=kind, leading=METRICS[kind][0])


def _drift(model: str, parts: Parts, instance: dg.DagsterInstance, *, since: datetime, until: datetime) -> tuple[Any, int]:
    """Return the newest drift report of the period, and how many of its windows were known before."""
    key = key_of(keys.model_key(model, "drift_report"))
    newest = _pointer(instance, dg.AssetRecordsFilter(asset_key=key, before_timestamp=until.timestamp()))
    earlier = _pointer(instance, dg.AssetRecordsFilter(asset_key=key, before_timestamp=since.timestamp()))
    return read_drift(parts, newest), earlier.windows if earlier else 0


def _pointer(instance: dg.DagsterInstance, wanted: dg.AssetRecordsFilter) -> DriftPointer | None:
    metadata = _metadata(instance, wanted)
    return from_mapping(DriftPointer, metadata[RECORD]) if RECORD in metadata else None


def _notes(key: Sequence[str], instance: dg.DagsterInstance, *, until: datetime) -> dict[str, Any]:
    return _metadata(instance, dg.AssetRecordsFilter(asset_key=key_of(key), before_timestamp=until.timestamp()))


def _metadata(instance: dg.DagsterInstance, wanted: dg.AssetRecordsFilter) -> dict[str, Any]:
    records = instance.fetch_materializations(wanted, limit=1).records
    made = records[0].asset_materialization if records else None
    return {name: value.value for name, value in made.metadata.items()} if made else {}


def _window(window: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: window[name] for name in ("window", "first_row", "last_row", "first_event", "last_event", "versions", "drifted", "evidence")
    }


def _cost(model: str, parts: Parts, *, since: float, until: float) -> list[dict[str, Any]]:
    """Sum the ledger by stage over what began in the period."""
    stages: dict[str, dict[str, Any]] = {}
    month, last = Month.of(since), Month.of(until)
    while month.begins <= last.begins:
        for entry in parts.ledger.entries(month):
            if entry.model != model or not since <= entry.began <= until:
                continue
            row = stages.setdefault(
                entry.stage,
                {"stage": entry.stage, "runs": 0, "wall_seconds": 0.0, "cpu_seconds": 0.0, "gpu_seconds": 0.0, "price_aed": 0.0},
            )
            row["runs"] += 1
            for name in ("wall_seconds", "cpu_seconds", "gpu_seconds", "price_aed"):
                row[name] += getattr(entry, name)
        month = month.next
    return [stages[name] for name in sorted(stages)]
