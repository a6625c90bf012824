"""Four views of the platform for architects (TOGAF's business, data, application and technology), a page and a diagram each.

Made from declarations, rooms and manifests, as docs/reference is, and held current with it: `python -m platform_assets.reference`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from platform_assets.specs.catalogue import Catalogue
from platform_assets.stages.cluster.workloads import Workload, workloads
from resources.settings import CHECKOUT

_MANIFESTS = [CHECKOUT / "infra" / "kubernetes" / folder for folder in ("serving", "base")]
_RUNS = "runs and steps"  # pods that Dagster makes: no manifest names them
_OUTSIDE = {5432: "PostgreSQL", 443: "S3-compatible store", 6443: "Kubernetes API", 8443: "identity provider"}


def render_views(catalogue: Catalogue) -> dict[str, Iterator[str]]:
    """Return the lines of each page by file name."""
    return {
        "view-business.md": _business(catalogue),
        "view-data.md": _data(catalogue),
        "view-application.md": _application(),
        "view-technology.md": _technology(catalogue),
    }


def _page(title: str, says: str, diagram: Iterable[str], *, kind: str = "LR") -> Iterator[str]:
    yield from (f"# {title}", "", says, "", "```mermaid", f"flowchart {kind}")
    yield from (f"  {line}" for line in diagram)
    yield from ("```", "")


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _id(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _span(value: Any) -> str:
    return "" if value is None else f"{value.total_seconds() / 3600:g} h"


def _business(catalogue: Catalogue) -> Iterator[str]:
    models = sorted(catalogue.models.values(), key=lambda model: model.name)

    def diagram() -> Iterator[str]:
        for model in models:
            yield f'{_id(model.tenant)}(["tenant {model.tenant}"]) -->|asks for| {model.name}["{model.name}"]'
            yield f'{model.name} -->|predicts {model.target.column}| {model.name}_purpose["{model.purpose}"]'
            yield f'{_id(model.owner)}[/"{model.owner}"/] -. answers for .-> {model.name}'

    says = "On whose behalf models run, what for, who answers for them, and what a late or wrong one means."
    yield from _page("Business view", says, diagram())
    budgets = catalogue.compute.tenants
    yield from _rows(
        ("model", "purpose", "tenant", "owner", "impact", "done within", "a month, AED", "goes live by"),
        (
            (
                model.name, model.purpose, model.tenant, model.owner, model.sla.impact, _span(model.sla.deadline),
                ", ".join(
                    f"{who} {budget.aed_per_month:g}"
                    for who, budget in (("model", model.budget), ("tenant", getattr(budgets.get(model.tenant), "budget", None)))
                    if budget is not None
                ),
                "its gates" if model.governance.approval == "automatic" else "its gates and a second person",
            )
            for model in models
        ),
    )  # fmt: skip
    yield "Decisions are assets with their evidence: the gate, the rollout and the retraining verdict of each model"
    yield "([graph](../reference/graph.md)). Who may do what is written in `infra/policies`."


def _data(catalogue: Catalogue) -> Iterator[str]:
    datasets = sorted(catalogue.datasets.values(), key=lambda dataset: dataset.name)
    readers = {
        name: [model for model in sorted(catalogue.models) if catalogue.models[model].dataset == name] for name in catalogue.datasets
    }

    def diagram() -> Iterator[str]:
        for dataset in datasets:
            yield f'{dataset.name}_source[("source: {dataset.source.kind}")] --> {dataset.name}["{dataset.name}"]'
            for view in dataset.views:
                yield f'{dataset.name} --> {dataset.name}_{view}["features {view}"]'
            for model in readers[dataset.name]:
                views = [view for view in catalogue.models[model].features.views if view in dataset.views]
                for origin in [f"{dataset.name}_{view}" for view in views] or [dataset.name]:
                    yield f'{origin} --> {model}_model{{{{"{model}"}}}}'

    says = "What is kept, where it comes from, who is in it, under whose law, and who reads it. Each arrow is a pinned version."
    yield from _page("Data view", says, diagram())
    yield from _rows(
        ("dataset", "owner", "columns", "personal", "person", "may be in", "kept", "read by"),
        (
            (
                dataset.name, dataset.owner, str(len(dataset.columns)),
                ", ".join(f"{name} ({column.personal.method})" for name, column in sorted(dataset.columns.items()) if column.personal),
                dataset.subject or "", ", ".join([dataset.residency, *(one.to for one in dataset.transfers)]),
                _span(dataset.retention) or "as long as it is declared", ", ".join(readers[dataset.name]),
            )
            for dataset in datasets
        ),
    )  # fmt: skip
    yield "Every column with its bounds: [declarations](../../platform_assets/defs). What becomes of rows at each state: the"
    yield "[graph](../reference/graph.md)."


def _application() -> Iterator[str]:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = [[name.removeprefix("platform_assets.") for name in re.split(r" : ", layer)] for layer in layers]
    stages = sorted(path.parent for path in (CHECKOUT / "platform_assets" / "stages").glob("*/__init__.py"))

    def diagram() -> Iterator[str]:
        for at, layer in enumerate(rooms):
            shown = ["cli_*"] if any(name.startswith("cli_b") for name in layer) else layer
            yield f'layer{at}["{", ".join(shown)}"]'
            if at:
                yield f"layer{at - 1} --> layer{at}"

    says = "Rooms of the program: each layer may import those below it, and no other; `make lint` refuses an arrow the other way."
    yield from _page("Application view", says, diagram(), kind="TD")
    packages = [CHECKOUT / "platform_assets" / name for layer in rooms for name in layer if (CHECKOUT / "platform_assets" / name).is_dir()]
    found = [*packages, *stages, CHECKOUT / "resources"]
    yield from _rows(("room", "what it is for"), ((f"`{path.relative_to(CHECKOUT).as_posix()}`", _door_sign(path)) for path in found))


def _door_sign(package: Path) -> str:
    return (ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or "").partition("\n")[0]


@dataclass(frozen=True)
class _Program:
    """A workload, as far as its network shows."""

    name: str
    labels: Mapping[str, str]
    ports: tuple[int, ...]
    work: Workload


def _technology(catalogue: Catalogue) -> Iterator[str]:
    files = sorted(file for folder in _MANIFESTS for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")
    manifests = [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one and "kind" in one]
    programs = [_program(one, work) for one in manifests for work in workloads([one])]
    run = _Program(_RUNS, {"falaj.ae/network": "run"}, (), Workload(_RUNS, "", {}))
    policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]

    def diagram() -> Iterator[str]:
        yield 'subgraph tenant["namespace of a tenant"]'
        yield from (f'  {_id(one.name)}["{one.name}"]' for one in [*programs, run])
        yield "end"
        yield from sorted(
            {f"{_id(one)} -->|{port}| {_id(other)}" for one, port, other in _links([*programs, run], policies) if one != other}
        )
        yield from (f'{_id(name)}[("{name}")]' for name in _OUTSIDE.values())

    says = (
        "What runs for one tenant and who may speak to whom, as the manifests say: an arrow is a NetworkPolicy's, its number a port. "
        "The inference replicas answer applications from outside."
    )
    yield from _page("Technology view", says, diagram())
    yield from _rows(
        ("workload", "image", "CPU", "memory"),
        (
            (one.name, *(_joined(one.work, _told(name)) for name in ("image", "cpu", "memory")))
            for one in programs
        ),
    )  # fmt: skip
    yield "Where steps run (`platform_assets/defs/compute/defs.yaml`):"
    yield ""
    yield from _rows(
        ("profile", "nodes", "GPUs a node", "cores", "memory", "region", "law", "AED an hour"),
        (
            (
                name, str(one.nodes), str(one.accelerator.count if one.accelerator else 0), f"{one.cpu:g}", one.memory, one.region,
                one.jurisdiction, f"{one.price_aed_per_hour:.2f}",
            )
            for name, one in catalogue.compute.profiles.items()
        ),
    )  # fmt: skip


def _program(manifest: Mapping[str, Any], work: Workload) -> _Program:
    ports = tuple(port["containerPort"] for _, container in work.containers() for port in container.get("ports", ()))
    return _Program(manifest["metadata"]["name"], manifest["spec"]["template"]["metadata"]["labels"], ports, work)


def _told(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda container: container["image"] if name == "image" else container["resources"]["limits"][name]


def _joined(work: Workload, tell: Callable[[Mapping[str, Any]], str]) -> str:
    return ", ".join(dict.fromkeys(tell(container) for path, container in work.containers() if path.startswith("containers")))


def _links(programs: list[_Program], policies: list[Mapping[str, Any]]) -> Iterator[tuple[str, int, str]]:
    """Yield who reaches whom on which port: within the tenant where both ends allow it, outside where the beginning does."""
    for policy in policies:
        for rule in policy.get("ingress") or ():
            for one in programs:
                for port in (entry["port"] for entry in rule.get("ports") or ()):
                    if any(_selects(peer.get("podSelector"), one.labels) for peer in rule["from"] if "namespaceSelector" not in peer):
                        yield from ((one.name, port, other.name) for other in programs if port in other.ports)
        for rule in policy.get("egress") or ():
            outside = [peer for peer in rule.get("to") or () if "namespaceSelector" in peer or "ipBlock" in peer]
            for port in (entry["port"] for entry in rule.get("ports") or () if outside):
                if port in _OUTSIDE:
                    chosen = [one for one in programs if _selects(policy["podSelector"], one.labels)]
                    yield from ((one.name, port, _OUTSIDE[port]) for one in chosen)


def _selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    if selector is None:
        return False
    exact = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return exact and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions") or ())
