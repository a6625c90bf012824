"""The self-contained HTML report of a main job: figures from the summary, pictures from the assets' own metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets import keys
from resources.home import write_atomically

if TYPE_CHECKING:
    import dagster as dg

    from platform_assets.specs.catalogue import Catalogue
    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec
    from resources.parts import Parts

_PICTURE = re.compile(r"!\[[^\]]*\]\((data:image/(?:png|svg\+xml);base64,[^)]+)\)")
_SHOWN = (
    ("trained", "training", "Learning curve, and calibration on the holdout"),
    ("selected", "frontier", "Compression frontier: accuracy, latency, size"),
    ("drift_report", "drift", "Drift by window and column"),
    ("drift_report", "performance", "Quality by window against what the release promised"),
)


def write_report(folder: Path, result: Mapping[str, Any], catalogue: Catalogue, parts: Parts, instance: dg.DagsterInstance) -> Path:
    """Write report-<time>.html into the folder, and return its path."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("platform_assets.main_job"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = _figure
    pictures = {
        row["name"]: _pictures(catalogue.models[row["name"]], catalogue.dataset_of(row["name"]), parts, instance)
        for row in result["models"]
    }
    now = datetime.now(tz=UTC)
    html = environment.get_template("report.html").render(
        result=result, pictures=pictures, models=catalogue.models, made=f"{now:%Y-%m-%d %H:%M} UTC"
    )
    path = folder / f"report-{now:%Y%m%d-%H%M%S}.html"
    write_atomically(path, html.encode())
    return path


def _pictures(model: ModelSpec, dataset: DatasetSpec, parts: Parts, instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    from platform_assets.main_job.pictures import draw_life

    found = [("Target over time", _metadata_picture(instance, keys.dataset_key(dataset.name, "ingested"), "target_over_time"))]
    found += [(title, _metadata_picture(instance, keys.model_key(model.name, state), name)) for state, name, title in _SHOWN]
    found.append(("Quality in production, with every decision", draw_life(model, parts, instance)))
    return [(title, uri) for title, uri in found if uri]


def _metadata_picture(instance: dg.DagsterInstance, key: list[str], name: str) -> str | None:
    from platform_assets.components.step import key_of

    event = instance.get_latest_materialization_event(key_of(key))
    if event is None or event.asset_materialization is None or name not in event.asset_materialization.metadata:
        return None
    match = _PICTURE.search(str(event.asset_materialization.metadata[name].value))
    return match[1] if match else None


def _figure(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 10 else f"{value:,.1f}"  # noqa: PLR2004 - metrics need four places, microseconds one
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
