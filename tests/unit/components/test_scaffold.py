"""What `dg scaffold defs` writes can be used as it is, and shows the whole shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from platform_assets.components.scaffold import render_declaration
from platform_assets.specs.catalogue import COMPUTE_TYPE, DATASET_TYPE, MODEL_TYPE, load_catalogue
from platform_assets.specs.compute import ComputeSpec
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import Architecture, Method, ModelSpec
from platform_assets.specs.words import reachable_specs

KINDS = pytest.mark.parametrize(("type_name", "spec"), [(MODEL_TYPE, ModelSpec), (DATASET_TYPE, DatasetSpec), (COMPUTE_TYPE, ComputeSpec)])


@KINDS
def test_a_scaffolded_declaration_loads_beside_the_shipped_ones_as_it_is(
    type_name: str, spec: type, tmp_path: Path, checkout: Path
) -> None:
    root = tmp_path / "defs"
    for path in (checkout / "platform_assets" / "defs").rglob("defs.yaml"):
        target = root / path.relative_to(checkout / "platform_assets" / "defs")
        target.parent.mkdir(parents=True)
        target.write_text(path.read_text())
    folder = root / ("compute" if spec is ComputeSpec else "mine")  # there is one compute catalogue: the scaffolded one takes its place
    folder.mkdir(exist_ok=True)
    (folder / "defs.yaml").write_text(render_declaration(type_name, spec, name="mine"))
    catalogue = load_catalogue(root)
    found = {ModelSpec: catalogue.models, DatasetSpec: catalogue.datasets, ComputeSpec: catalogue.compute.profiles}[spec]
    assert ("cpu-small" if spec is ComputeSpec else "mine") in found


@KINDS
def test_taking_every_comment_sign_away_changes_nothing(type_name: str, spec: type) -> None:
    text = render_declaration(type_name, spec, name="mine")
    bare = re.sub(r"^( *)# ", r"\1", text.split("attributes:\n")[1], flags=re.MULTILINE)
    assert spec.model_validate(yaml.safe_load(bare)) == spec.model_validate(yaml.safe_load(text)["attributes"])


@KINDS
def test_every_field_stands_there_with_its_meaning(type_name: str, spec: type) -> None:
    text = render_declaration(type_name, spec, name="mine")
    for inner in reachable_specs(spec):
        for field, info in inner.model_fields.items():
            assert info.description, f"{inner.__name__}.{field} has no description"
            assert re.search(rf"\b{field}:.*# {re.escape(info.description)}", text), f"{inner.__name__}.{field}"


def test_choices_are_shown() -> None:
    text = render_declaration(MODEL_TYPE, ModelSpec, name="mine")
    assert f"One of: {', '.join(get_args(Architecture))}." in text
    assert f"Any of: {', '.join(get_args(Method))}." in text
