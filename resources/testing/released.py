"""A home with one released model, made from a graph and a schema: for tests and benchmarks of what reads releases. Never in production."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.specs.record_json import to_json
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.settings import Home, Settings
from resources.testing.keys import open_releases

if TYPE_CHECKING:
    from platform_assets.specs.records import FeatureSchema

_TYPES = {"numeric": "number", "date": "timestamp", "category": "string", "text": "text"}
MODEL = "given"


def write_released_home(root: Path, *, schema: FeatureSchema, graph: bytes) -> Settings:
    """Write declarations of a dataset and a model with this schema, and the graph as its live release; return the settings of that home.

    Features of other entities than the key's come from a view of aggregates. The release has no recorded answers: no server takes it.
    """
    settings = declare_released(root, schema=schema)
    release(settings, schema=schema, graph=graph)
    return settings


def declare_released(root: Path, *, schema: FeatureSchema) -> Settings:
    """Write the declarations alone."""
    _declare(root / "defs", schema)
    return settings_of(root)


def settings_of(root: Path) -> Settings:
    """Return the settings of a home that was written here."""
    return Settings(home=Home(root / "home"), environment="laptop", defs_root=root / "defs", webhook_url=None, serve_port=0, web_port=0)


def release(settings: Settings, *, schema: FeatureSchema, graph: bytes) -> str:
    """Make the graph the live release of this home; return its digest."""
    digest = put_release(settings.home, schema=schema, graph=graph)
    audit = SqliteAuditLog(settings.home.state, signer=HeadSigner(settings.home.keys))
    audit.append("release", subject=f"model/{MODEL}", actor="test", detail={"digest": digest, "mlflow_version": "1"})
    audit.append("rollout", subject=f"model/{MODEL}", actor="test", detail={"outcome": "live", "live": digest, "why": "made"})
    return digest


def put_release(home: Home, *, schema: FeatureSchema, graph: bytes, **more: str) -> str:
    """Store a release of the graph, of no model's yet; return its digest. `more` are further files, name to text."""
    folder = home.root / "made"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(graph)
    for name, text in {"schema.json": to_json(schema), **more}.items():
        (folder / name).write_text(text)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    manifest = {"model": MODEL, "candidate": "given", "created": "2026-01-01", "files": list_files(folder)}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return open_releases(home).put(folder)


def _declare(root: Path, schema: FeatureSchema) -> None:
    own = [feature for feature in schema.features if feature.entity == schema.key]
    others = [feature for feature in schema.features if feature.entity != schema.key]
    times = {schema.event_time: {"type": "timestamp"}, "known": {"type": "timestamp"}}
    entities = {feature.entity: {"type": "string"} for feature in others}
    columns = {
        schema.key: {"type": "string"}, **times, schema.target: {"type": "integer", "nullable": True}, **entities,
        **{feature.name: {"type": _TYPES[feature.kind], "nullable": True} for feature in own},
    }  # fmt: skip
    views: dict[str, object] = {"own": {"kind": "columns", "entity": schema.key, "columns": [feature.name for feature in own]}}
    for view in dict.fromkeys(feature.view for feature in others):
        found = [feature for feature in others if feature.view == view]
        aggregates = {feature.name: {"mean": schema.target, "window": "30d"} for feature in found}
        views[view] = {"kind": "aggregates", "entity": found[0].entity, "every": "1d", "aggregates": aggregates}
    dataset = {
        "name": "given_rows", "owner": "team:tests", "source": {"kind": "file", "path": str(root / "rows.parquet")}, "key": schema.key,
        "event_time": schema.event_time, "label": {"column": schema.target, "known_at": "known"}, "columns": columns, "views": views,
    }  # fmt: skip
    model = {
        "name": MODEL, "owner": "team:tests", "purpose": "Answer the rows of a test", "dataset": "given_rows",
        "features": {"views": list(views)}, "target": {"column": schema.target, "kind": "binary"},
        "training": {"architecture": "tabular_mlp"},
    }  # fmt: skip
    for name, kind, attributes in (
        ("datasets/given_rows", "dataset.Dataset", dataset),
        ("models/given", "model_pipeline.ModelPipeline", model),
    ):
        path = root / name / "defs.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"type": f"platform_assets.components.{kind}", "attributes": attributes}))
