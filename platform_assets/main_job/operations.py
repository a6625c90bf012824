"""The operator's verbs: status, predict, rollback, releases, tokens, schemas. Each reads or changes one thing and says what."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.step import latest_record
from platform_assets.definitions import bind_parts
from platform_assets.errors import AccessError, Fault, ReleaseError, SealError, ServingError, SpecError, StateError
from platform_assets.identity.principal import EVERY_TENANT
from platform_assets.main_job import site
from platform_assets.main_job.releases import live_digests, released_digests
from platform_assets.main_job.spending import spending_now
from platform_assets.sealing.release import SIGNATURE_FILE
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.records import DriftPointer, RetrainingVerdict, RolloutVerdict
from platform_assets.specs.rotation import Rotation
from platform_assets.stages.serving.access import PREDICT
from resources import certificates, processes
from resources.dagster_instance import gate
from resources.home import write_atomically
from resources.parts import Parts
from resources.settings import Settings, apply_to_this_process

_LOOK_SECONDS = 10.0


def open_parts(settings: Settings, model: str) -> Parts:
    """Bind the parts and make sure that this model is declared."""
    site.prepare(settings)
    apply_to_this_process(settings)
    parts = bind_parts(settings)
    if model not in parts.catalogue.models:
        raise SpecError([Fault("falaj", model, f"no model of this name; declared: {', '.join(sorted(parts.catalogue.models))}")])
    return parts


def read_status(settings: Settings) -> dict[str, Any]:
    """Return live version, traffic, last drift, last verdict, spend against budget and next scheduled run of every model."""
    site.prepare(settings)
    apply_to_this_process(settings)
    parts = bind_parts(settings)
    with dg.DagsterInstance.get() as instance:
        models = [_status_of(model, parts, instance) for model in parts.catalogue.models.values()]
        held = [{"run_id": run.run_id, "job": run.job_name} for run in gate.held_runs(instance)]
    running = [
        name
        for name in (site.WEB, site.GATEWAY, site.MLFLOW, site.DAEMON, site.SERVER, site.CERTIFICATES)
        if processes.running(settings.home, name)
    ]
    return {"models": models, "running": running, "home": str(settings.home.root), "spend": spending_now(parts), "held": held}


def _status_of(model: ModelSpec, parts: Parts, instance: dg.DagsterInstance) -> dict[str, Any]:
    try:
        serving = parts.serving.status(model.name)
    except ServingError:
        serving = {}
    drift = latest_record(instance, keys.model_key(model.name, "drift_report"), DriftPointer)
    verdict = latest_record(instance, keys.model_key(model.name, "retraining_verdict"), RetrainingVerdict)
    pin = parts.tables.pin(keys.table_name(keys.model_key(model.name, "production_log")))
    rollout = latest_record(instance, keys.model_key(model.name, "rollout_verdict"), RolloutVerdict)
    live, stopped = serving.get("live"), f"{rollout.live_digest[:12]} (server stopped)" if rollout else None
    return {
        "name": model.name,
        "live_version": live[:12] if live else stopped,
        "challenger": f"{serving['challenger'][:12]} ({serving['mode']} {serving['percent']} %)" if serving.get("challenger") else None,
        "rows_answered": pin.rows if pin else 0,
        "drift": drift.evidence if drift else None,
        "verdict": verdict.sentence if verdict else None,
        "seconds_spent": round(sum(row["wall_seconds"] for row in parts.ledger.totals() if row["model"] == model.name), 1),
        "next_run": _next_run(model),
    }


def _next_run(model: ModelSpec) -> str | None:
    if model.retraining.schedule is None:
        return None
    from dagster._utils.schedules import schedule_execution_time_iterator

    times = schedule_execution_time_iterator(datetime.now(tz=UTC).timestamp(), model.retraining.schedule, "UTC", ascending=True)
    return f"{next(times):%Y-%m-%d %H:%M} UTC"


def serve_in_foreground(settings: Settings, model: str, *, port: int | None) -> int:
    """Run the inference server until it is told to stop; return its exit status."""
    import subprocess

    from resources.serving import server_command
    from resources.settings import child_environment

    open_parts(settings, model)
    if processes.running(settings.home, site.SERVER):
        raise ServingError(f"An inference server of {settings.home.root} runs already; `falaj down` stops it.")
    kept = processes.running(settings.home, site.CERTIFICATES)
    site.keep_certificates(settings, tied=True)
    try:
        return subprocess.run(server_command(settings, port=port), env=child_environment(settings), check=False).returncode
    finally:
        if kept is None:
            processes.stop(settings.home, site.CERTIFICATES)


def roll_back(settings: Settings, model: str) -> tuple[str, str]:
    """Make the release live that was live before; return (before, after), read back from the server."""
    parts = open_parts(settings, model)
    live = parts.serving.status(model).get("live")
    history = live_digests(parts.audit, model)
    previous = next((digest for digest in reversed(history) if digest != live), None)
    if live is None or previous is None:
        raise ReleaseError(f"{model} has no earlier live release to go back to; `falaj release list {model}` shows what there is.")
    parts.serving.load(model, previous)
    parts.serving.set_traffic(model, live=previous)
    proven = parts.serving.status(model).get("live")
    if proven != previous:
        raise ServingError(f"The server says {proven} is live, asked was {previous}; nothing else was changed.")
    parts.audit.append("rollback", subject=f"model/{model}", actor="falaj rollback", detail={"live": previous, "before": live})
    number = next((row["mlflow_version"] for row in list_releases(settings, model) if row["digest"] == previous), None)
    if number is not None:
        parts.registry.set_alias(model, "champion", number)
    return live, previous


def list_releases(settings: Settings, model: str) -> list[dict[str, Any]]:
    """Return a model's releases, newest last, from the audit log and the bundles."""
    parts = open_parts(settings, model)
    try:
        live = parts.serving.status(model).get("live")
    except ServingError:
        live = None
    rows: dict[str, dict[str, Any]] = {}
    for entry in parts.audit.entries(subject=f"model/{model}"):
        if entry["action"] != "release":
            continue
        digest = entry["detail"]["digest"]
        candidate, metric = _describe(parts, model, digest)
        rows[digest] = {
            "digest": digest, "version": digest[:12], "candidate": candidate, "metric": metric,
            "mlflow_version": entry["detail"]["mlflow_version"], "created": entry["at"], "live": "live" if digest == live else "",
        }  # fmt: skip
    return list(rows.values())


def _describe(parts: Parts, model: str, digest: str) -> tuple[str, str]:
    """Return a release's candidate and leading metric; one that is refused is listed with the reason."""
    lead = parts.catalogue.models[model].leading_metric
    try:
        release = parts.releases.open(digest)
        return release.manifest["candidate"], f"{lead} {json.loads(release['metrics.json'])['holdout'][lead]:.4f}"
    except SealError as error:
        return "refused", error.reason
    except ReleaseError:
        return "-", "not sealed, or not whole"


def find_release(settings: Settings, model: str, version: str | None) -> tuple[Parts, str]:
    """Return the parts and the digest of a release; the live one, else the newest, where no version is named. ReleaseError lists them."""
    rows = list_releases(settings, model)
    wanted = [row for row in rows if (row["version"] == version if version else row["live"])] or ([] if version else rows[-1:])
    if not wanted:
        known = ", ".join(row["version"] for row in rows) or "none was made yet"
        raise ReleaseError(f"{model} has no release {version or ''}; releases: {known}.")
    return open_parts(settings, model), wanted[0]["digest"]


def read_card(settings: Settings, model: str, version: str | None) -> str:
    """Return a release's model card as Markdown."""
    parts, digest = find_release(settings, model, version)
    return parts.releases.open(digest)["model_card.md"].decode()


def verify_release(settings: Settings, model: str, version: str | None) -> tuple[str, int]:
    """Verify a release's signature and every byte; return digest and number of files, or raise SealError with the reason."""
    parts, digest = find_release(settings, model, version)
    return digest, len(parts.releases.open(digest).files)


def export_release(settings: Settings, model: str, version: str | None, *, folder: Path) -> str:
    """Decrypt a release into a new folder, its signature beside the files; return its digest."""
    parts, digest = find_release(settings, model, version)
    if folder.exists():
        raise ReleaseError(f"{folder} exists; name a folder that does not, what is in it is not overwritten.")
    for name, content in parts.releases.open(digest).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / SIGNATURE_FILE).write_bytes((parts.releases.path(digest) / SIGNATURE_FILE).read_bytes())
    detail = {"digest": digest, "folder": str(folder.absolute())}
    parts.audit.append("release_exported", subject=f"model/{model}", actor="falaj release export", detail=detail)
    return digest


def seal_releases(settings: Settings, model: str) -> list[str]:
    """Sign and encrypt releases that were made before releases were; return their digests. The audit log names each digest already."""
    parts = open_parts(settings, model)
    sealed = [digest for digest in dict.fromkeys(released_digests(parts.audit, model)) if digest not in parts.releases.digests()]
    for digest in sealed:
        parts.releases.put(parts.artefacts.path(digest))
        parts.audit.append("release_sealed", subject=f"model/{model}", actor="falaj release seal", detail={"digest": digest})
    return sealed


def rotate_keys(settings: Settings) -> Rotation:
    """Bring every release, and the key of personal columns, to a new key; the audit log says so before and after."""
    site.prepare(settings)
    parts = bind_parts(settings)
    parts.audit.append("key_rotation_began", subject="keys", actor="falaj keys rotate", detail={"keys": parts.keys.ids()})
    parts.column_key.rewrap()  # to the key that this rotation keeps, should the last one have been killed before its end
    rotation = parts.releases.rotate()
    parts.column_key.rewrap()
    parts.audit.append("keys_rotated", subject="keys", actor="falaj keys rotate", detail=asdict(rotation))
    return rotation


def rotate_services(settings: Settings) -> bool:
    """Make a new authority of certificates of services; return whether the inference server, where one runs, is known to trust it.

    StateError where certificates are none or others'.
    """
    from resources.serving import find_server

    if settings.mtls != certificates.LOCAL:
        raise StateError(f"FALAJ_MTLS is {settings.mtls}: this home signs no certificates of services; right would be {certificates.LOCAL}")
    parts = bind_parts(settings)
    certificates.rotate(settings.home.keys)
    parts.audit.append("service_certificates_rotated", subject="keys", actor="falaj keys rotate --services", detail={})
    return find_server(settings.home) is None or _answers_soon(settings)


def _answers_soon(settings: Settings) -> bool:
    from resources.serving import connect

    until = time.monotonic() + _LOOK_SECONDS
    while time.monotonic() < until:
        try:
            with connect(settings) as client:
                client.request("GET", "/status")
        except ServingError:
            time.sleep(0.1)
        else:
            return True
    return False


def mint_token(settings: Settings, *, subject: str, scopes: list[str], roles: list[str], tenants: list[str], minutes: int) -> str:
    """Return a bearer token of the local issuer: for the inference server by scopes, for the web UI's API by roles."""
    from resources.tokens import mint, mint_identity

    site.prepare(settings)
    if scopes and roles:
        raise AccessError("a token is for one audience: --scope is the inference server's, --role the web UI's; ask for two tokens")
    if roles:
        return mint_identity(settings.home.keys, roles=roles, tenants=tenants or [EVERY_TENANT], subject=subject, seconds=minutes * 60)
    return mint(settings.home.keys, subject=subject, scopes=scopes or [PREDICT], seconds=minutes * 60)


def write_schemas(folder: Path) -> list[Path]:
    """Write the JSON schemas of every kind of declaration, and of events; return their paths."""
    from platform_assets.specs.catalogue import SPECS, declaration_schema
    from platform_assets.specs.events import event_schema

    paths = []
    for type_name, spec in SPECS.items():
        name = spec.__name__.removesuffix("Spec").lower()
        path = folder / f"{name}.schema.json"
        write_atomically(path, json.dumps(declaration_schema(type_name), indent=2).encode())
        paths.append(path)
    path = folder / "event.schema.json"
    write_atomically(path, json.dumps(event_schema(), indent=2).encode())
    return [*paths, path]
