"""Every fault of every file is reported together, with file, field, what was found and what would be right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from platform_assets.errors import SpecError
from platform_assets.specs.catalogue import declaration_schema, load_catalogue
from platform_assets.specs.dataset import Column, DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.rules import check_model
from platform_assets.specs.strict_yaml import MAX_FILE_BYTES

MODEL = """
type: platform_assets.components.model_pipeline.ModelPipeline
attributes:
  name: {name}
  owner: team:x
  purpose: Predict something that matters
  dataset: {dataset}
  features: {{views: [{views}]}}
  target: {{column: {target}, kind: binary}}
  training: {{architecture: tabular_transformer{training}}}
{more}
"""


@pytest.fixture
def tree(tmp_path: Path, checkout: Path) -> Path:
    root = tmp_path / "defs"
    shutil.copytree(checkout / "platform_assets" / "defs" / "datasets", root / "datasets")
    return root


def declare(root: Path, folder: str, **changes: str) -> None:
    values = {
        "name": "mine",
        "dataset": "hotel_bookings_simulated",
        "views": "booking",
        "target": "is_canceled",
        "training": "",
        "more": "",
    }
    write(root, folder, MODEL.format(**{**values, **changes}))


def write(root: Path, folder: str, text: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "defs.yaml").write_text(text)


def faults_of(root: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_catalogue(root)
    return [str(fault) for fault in caught.value.faults]


def test_a_right_declaration_loads(tree: Path) -> None:
    declare(tree, "a")
    catalogue = load_catalogue(tree)
    assert list(catalogue.models) == ["mine"]
    assert catalogue.dataset_of("mine").columns["guest_email"].personal is not None
    assert "adr" in catalogue.dataset_of("mine").columns, "columns of the extended dataset are there"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": "hotel_bookingz"}, "no dataset 'hotel_bookingz'; declared: digits, hotel_bookings, hotel_bookings_simulated"),
        ({"views": "bookin"}, "no view 'bookin'"),
        ({"training": ", epocs: 3"}, "unknown key 'epocs'; did you mean 'epochs'?"),
        ({"training": ", epochs: -3"}, "training.epochs: Input should be greater than 0, found -3"),
        ({"training": ", width: 33"}, "width 33 is not a multiple of heads 4"),
        ({"target": "adr"}, "'adr' is not the label"),
        ({"more": "  gates: {aurok: '>= 0.5'}"}, "no such metric of a binary model; valid: accuracy"),
        ({"more": "  gates: {auroc: 'above 0.5'}"}, "is not a bound; write for example '>= 0.85'"),
        ({"more": "  tenant: '{{ env.X }}'"}, "template expressions are not expanded"),
        ({"more": "  retraining: {schedule: 'every day'}"}, "is not a cron string"),
        ({"more": "  retraining: {schedule: '0 25 * * *'}"}, "is not a cron string"),
        ({"more": "  retraining: {cool_down: soon}"}, "is not a span of time"),
        ({"more": "  governance: {residency: DE}"}, "DE is not where dataset 'hotel_bookings_simulated' may be (AE)"),
        ({"more": "  features: {views: [booking]}"}, "'features' is given twice"),
        ({"dataset": "digits", "views": "image", "target": "digit"}, "'tabular_transformer' does not fit: the views give an image column"),
    ],
)
def test_one_wrong_field_is_one_clear_sentence(tree: Path, changes: dict[str, str], expected: str) -> None:
    declare(tree, "a", **changes)
    faults = faults_of(tree)
    assert len(faults) == 1, faults
    assert expected in faults[0]
    assert faults[0].startswith("defs/a/defs.yaml: ")


@pytest.mark.parametrize(
    ("architecture", "kinds", "fits"),
    [
        ("text_transformer", {"text", "number"}, True), ("text_transformer", {"number"}, False), ("text_transformer", {"text", "image"}, False),
        ("tabular_mlp", {"text"}, True), ("tabular_mlp", {"image"}, False), ("tabular_transformer", {"text", "number"}, False),
        ("convolutional", {"image"}, True), ("convolutional", {"image", "text"}, False), ("vision_transformer", {"number"}, False),
        ("custom", {"image", "text"}, True), ("custom", {"number"}, True),
    ],
)  # fmt: skip
def test_an_architecture_fits_the_kinds_of_columns_it_can_read(architecture: str, kinds: set[str], *, fits: bool) -> None:
    columns = {kind: Column.model_validate({"type": kind, "shape": [2, 2] if kind == "image" else None}) for kind in sorted(kinds)}
    label = {"l": Column(type="integer"), "k": Column(type="string"), "t": Column(type="timestamp")}
    dataset = DatasetSpec.model_validate({
        "name": "d", "owner": "o", "source": {"kind": "provided"}, "key": "k", "event_time": "t", "columns": {**columns, **label},
        "label": {"column": "l", "known_at": "t"}, "views": {"v": {"kind": "columns", "entity": "k", "columns": sorted(kinds)}},
    })  # fmt: skip
    model = ModelSpec.model_validate({
        "name": "m", "owner": "o", "purpose": "See what fits", "dataset": "d", "features": {"views": ["v"]}, "target": {"column": "l", "kind": "binary"},
        "training": {"architecture": architecture, "module": "a:B" if architecture == "custom" else None},
    })  # fmt: skip
    faults = [fault for fault in check_model(model, {"d": dataset}) if fault.field == "training.architecture"]
    assert (faults == []) is fits


BOMB = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))  # a billion laughs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("a: [b", "not readable as YAML"),
        ("- a\n- b\n", "found list at the top"),
        ("type: nope\nattributes: {}\n", "found 'nope'; valid: platform_assets.components"),
        ("type: platform_assets.components.dataset.Dataset\nattributes: &a [*a]\n", "aliases (*name) are refused"),
        (BOMB, "aliases (*name) are refused"),
        ("type: !!python/object/apply:os.system [id]\n", "not readable as YAML"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        ("\x00", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_declaration_is_named(tree: Path, text: str, expected: str) -> None:
    write(tree, "broken", text)
    assert any(expected in fault and "defs/broken/defs.yaml" in fault for fault in faults_of(tree))


def test_a_huge_file_is_refused_unread(tree: Path) -> None:
    write(tree, "huge", "a" * (MAX_FILE_BYTES + 1))
    assert "a declaration has at most 1,048,576" in faults_of(tree)[0]


def test_faults_of_all_files_come_together_and_cross_file_rules_still_hold_in_a_file_with_faults(tree: Path) -> None:
    declare(tree, "a", name="one", dataset="nowhere", training=", epocs: 3")
    declare(tree, "b", name="two", views="nothing")
    declare(tree, "c", name="two")
    write(tree, "d", "")
    faults = faults_of(tree)
    assert [fault.split(": ")[0] for fault in faults] == [f"defs/{x}/defs.yaml" for x in "aabcd"]
    assert "names are unique" in faults[3]


def test_a_provided_dataset_takes_the_place_of_the_one_it_stands_in_for(tree: Path) -> None:
    declare(tree, "a")
    catalogue = load_catalogue(tree)
    assert catalogue.provide({"hotel_bookings": "/x.parquet"}).models["mine"].dataset == "hotel_bookings"
    with pytest.raises(SpecError, match="no dataset of this name; declared"):
        catalogue.provide({"hotels": "/x.parquet"})
    with pytest.raises(SpecError, match="has a source of its own"):
        catalogue.provide({"digits": "/x.parquet"})


def test_the_editor_schema_accepts_what_the_loader_accepts(tree: Path) -> None:
    import jsonschema
    import yaml

    declare(tree, "a")
    document = yaml.safe_load((tree / "a" / "defs.yaml").read_text())
    schema = declaration_schema(document["type"])
    jsonschema.validate(document, schema)
    document["attributes"]["epocs"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
