"""The bill of materials of a release: the model, the data that it learnt from and the software that made and serves it.

CycloneDX 1.6 as JSON (ECMA-424), whose machine-learning part is the `modelCard` of a component (ML-BOM). No wall time enters, and the
serial number follows from the content: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec
    from platform_assets.specs.packages import Package
    from platform_assets.specs.records import Training, TrainingSet

SBOM_FILE = "sbom.cdx.json"
_NAMESPACE = uuid.UUID("6f0f7c52-8a6c-5a36-9d0e-6b1f4f5c2a11")  # of these serial numbers
_MODEL, _DATA = "model", "training-set"


def write_bill(
    *, model: ModelSpec, dataset: DatasetSpec, training: Training, training_set: TrainingSet, metrics: Mapping[str, float],
    files: Sequence[Mapping[str, str]], packages: Sequence[Package],
) -> str:  # fmt: skip
    """Return the bill as JSON. `metrics` are those of the holdout, `files` path and SHA-256 of each file of the model."""
    card = {
        "modelParameters": {
            "approach": {"type": "supervised"}, "task": f"{model.target.kind} classification of {model.target.column}",
            "modelArchitecture": model.training.architecture, "datasets": [{"ref": _DATA}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [{"type": name, "value": f"{value:.6g}", "slice": "holdout"} for name, value in sorted(metrics.items())]
        },
        "considerations": {"useCases": [model.purpose]},
    }  # fmt: skip
    component = {
        "type": "machine-learning-model", "bom-ref": _MODEL, "name": model.name, "version": training.digest[:12],
        "publisher": model.owner, "modelCard": card,
        "components": [
            {"type": "file", "name": file["path"], "hashes": [{"alg": "SHA-256", "content": file["sha256"]}]} for file in files
        ],
    }  # fmt: skip
    data = {
        "type": "data", "bom-ref": _DATA, "name": dataset.name, "version": training_set.digest[:12], "publisher": dataset.owner,
        "hashes": [{"alg": "SHA-256", "content": training_set.digest}],
        "data": [{
            "type": "dataset", "name": dataset.name, "sensitiveData": sorted(name for name, one in dataset.columns.items() if one.personal),
            "description": f"{sum(training_set.rows.values())} rows, {training_set.first_event} to {training_set.last_event}",
        }],
    }  # fmt: skip
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": component},
        "components": [data, *(_library(package) for package in packages)],
        "dependencies": [{"ref": _MODEL, "dependsOn": [_DATA, *(_purl(package) for package in packages if package.serves)]}],
    }  # fmt: skip
    return _numbered(bill)


def write_software_bill(name: str, *, packages: Sequence[Package]) -> str:
    """Return the bill of a program, such as an image, as JSON: the packages that are in it."""
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name}},
        "components": [_library(package) for package in packages],
        "dependencies": [{"ref": name, "dependsOn": [_purl(package) for package in packages]}],
    }  # fmt: skip
    return _numbered(bill)


def _numbered(bill: dict[str, Any]) -> str:
    text = json.dumps(bill, sort_keys=True)
    return json.dumps({**bill, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}"}, sort_keys=True, indent=1)


def _library(package: Package) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "library", "bom-ref": _purl(package), "name": package.name, "version": package.version, "purl": _purl(package),
        "scope": "required" if package.serves else "excluded",
    }  # fmt: skip
    return {**entry, "licenses": [{"expression": package.license}]} if package.license else entry


def _purl(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"
