"""The compute catalogue and what models take of it: every fault is one sentence with the valid choices, all reported together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from platform_assets.errors import SpecError
from platform_assets.specs.catalogue import load_catalogue

SHIPPED = Path(__file__).resolve().parents[3] / "platform_assets" / "defs"
HEAD = "type: platform_assets.components.compute.Compute\nattributes:\n"
SMALL = "{cpu: 2, memory: 4Gi, price_aed_per_hour: 1}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED, tmp_path / "defs")
    return tmp_path / "defs"


def declare(tree: Path, profiles: dict[str, str], *, default: str = "small", folder: str = "compute") -> None:
    (tree / folder).mkdir(exist_ok=True)
    body = "".join(f"    {name}: {text}\n" for name, text in profiles.items())
    (tree / folder / "defs.yaml").write_text(f"{HEAD}  default: {default}\n  profiles:\n{body}")


def train_with(tree: Path, text: str) -> None:
    """Put a line into the training of the digits model; its own profile goes."""
    file = tree / "models" / "digits" / "defs.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("    compute:")]
    file.write_text("\n".join(lines).replace("  training: # about", f"  training:\n    {text} # about"))
    other = tree / "models" / "hotel_cancellations" / "defs.yaml"
    other.write_text("\n".join(line for line in other.read_text().splitlines() if not line.startswith("    compute:")))


def faults_of(tree: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_catalogue(tree)
    return [str(fault) for fault in caught.value.faults]


def test_states_run_on_the_profile_that_their_part_names_and_on_the_default_otherwise(tree: Path) -> None:
    declare(tree, {"small": SMALL, "big": SMALL, "gpu": SMALL.replace("cpu", "accelerator: {count: 2}, cpu")})
    train_with(tree, "compute: gpu")
    catalogue = load_catalogue(tree)
    assert {state: catalogue.profile_of("digits", state)[0] for state in ("training_set", "trained", "candidates", "release")} == {
        "training_set": "small",
        "trained": "gpu",
        "candidates": "small",
        "release": "small",
    }
    assert catalogue.profile_of("digits", "trained")[1].gpus == 2
    assert catalogue.profile_of_asset(["dataset", "digits", "ingested"])[0] == "small"
    assert catalogue.profile_of_asset(["model", "digits", "trained"])[0] == "gpu"


def test_a_tree_without_a_catalogue_has_this_machine_free_of_charge(tree: Path) -> None:
    shutil.rmtree(tree / "compute")
    train_with(tree, "compile: false")
    name, profile = load_catalogue(tree).profile_of("digits", "trained")
    assert (name, profile.gpus, profile.price_aed_per_hour) == ("local", 0, 0)
    assert profile.cpu >= 1
    assert profile.memory_bytes > 2**20


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ({"big": SMALL}, "default: no profile 'small'; declared: big"),
        ({"small": SMALL[:-1] + ", larger: huge}"}, "profiles.small.larger: no profile 'huge'; declared: small"),
        ({"small": SMALL[:-1] + ", larger: small}"}, "profiles.small.larger: small -> small comes back to where it began"),
        (
            {"small": SMALL[:-1] + ", larger: gpu}", "gpu": "{accelerator: {count: 1}, cpu: 8, memory: 64Gi, price_aed_per_hour: 9}"},
            "profiles.small.larger: 'gpu' has GPUs and 'small' has none",
        ),
        ({"small": SMALL[:-1] + ", larger: big}", "big": SMALL}, "'big' has no more memory and no more GPUs than 'small'"),
        ({"small": SMALL.replace("4Gi", "4GB")}, "'4GB' is no amount of memory; write for example 512Mi, 4Gi or 1Ti"),
        ({"small": SMALL.replace("cpu: 2", "cpu: 0")}, "profiles.small.cpu: Input should be greater than 0, found 0"),
        ({"small": SMALL[:-1] + ", gpus: 2}"}, "profiles.small.gpus: unknown key 'gpus'; "),
    ],
)
def test_one_wrong_profile_is_one_clear_sentence(tree: Path, profiles: dict[str, str], expected: str) -> None:
    train_with(tree, "compile: false")
    declare(tree, profiles)
    (fault,) = faults_of(tree)
    assert fault.startswith("defs/compute/defs.yaml: ")
    assert expected in fault


def test_a_circle_of_larger_profiles_is_named_at_each_of_its_members_and_nowhere_else(tree: Path) -> None:
    train_with(tree, "compile: false")
    sizes = {"small": "a", "a": "b", "b": "a"}
    declare(
        tree, {name: f"{{cpu: 2, memory: {i}Gi, price_aed_per_hour: 1, larger: {to}}}" for i, (name, to) in enumerate(sizes.items(), 1)}
    )
    faults = faults_of(tree)
    assert [fault.split(": ")[1] for fault in faults] == ["profiles.a.larger", "profiles.b.larger"]
    assert "a -> b -> a" in faults[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("compute: gpu-smal", "training.compute: no profile 'gpu-smal'; declared: cpu-highmem, cpu-large, "),
        ("module: mine.nets:Net", "training.module: 'mine.nets:Net' goes with architecture custom, this one is vision_transformer"),
        ("options: {size: 3}", "training.options: options go with architecture custom"),
        (
            "search: {epoch: [1, 2]}",
            "training.search.epoch: 'epoch' is no field that a trial may change; valid: architecture, batch_size, ",
        ),
        ("search: {threads: [1, 2]}", "training.search.threads: 'threads' is no field that a trial may change"),
        ("search: {learning_rate: {low: 0.1, high: 0.01}}", "low 0.1 is not below high 0.01"),
        ("search: {weight_decay: {low: 0, high: 0.1, log: true}}", "log needs numbers above nil, found low 0"),
        ("search: {width: [16, 32.5]}", "training.search.width: Input should be a valid integer"),
        ("search: {width: {low: 0.5, high: 64}}", "training.search.width: Input should be a valid integer, found 0.5"),
        ("search: {dropout: {low: 0, high: 2}}", "training.search.dropout: Input should be less than 1, found 2"),
        ("search: {precision: [fast]}", "training.search.precision: Input should be '32-true' or 'bf16-mixed', found 'fast'"),
        ("search: {depth: {low: 3, high: 4}}", "training.search.depth: the declared depth, 2, is the first trial"),
        ("search: {width: []}", "training.search.width: the list of choices is empty"),
    ],
)
def test_one_wrong_training_is_one_clear_sentence(tree: Path, line: str, expected: str) -> None:
    train_with(tree, line)
    (fault,) = faults_of(tree)
    assert fault.startswith("defs/models/digits/defs.yaml: ")
    assert expected in fault


def test_a_custom_network_needs_its_class(tree: Path) -> None:
    train_with(tree, "compile: false")
    file = tree / "models" / "digits" / "defs.yaml"
    file.write_text(file.read_text().replace("architecture: vision_transformer", "architecture: custom"))
    assert any("training.module: architecture custom needs module" in fault for fault in faults_of(tree))


def test_a_search_space_that_fits_loads(tree: Path) -> None:
    train_with(tree, "search: {learning_rate: {low: 0.0001, high: 0.1, log: true}, depth: {low: 1, high: 4}, width: [16, 32]}")
    assert set(load_catalogue(tree).models["digits"].training.search) == {"learning_rate", "depth", "width"}


def test_two_compute_catalogues_are_one_too_many_and_every_file_is_still_held_against_the_first(tree: Path) -> None:
    train_with(tree, "compute: nowhere")
    declare(tree, {"small": SMALL}, folder="second")
    faults = faults_of(tree)
    assert len(faults) == 2, faults
    assert "no profile 'nowhere'; declared: cpu-highmem" in faults[0]
    assert "defs/second/defs.yaml: type: compute is declared in defs/compute/defs.yaml already" in faults[1]


def test_faults_of_the_catalogue_and_of_models_come_together(tree: Path) -> None:
    train_with(tree, "compute: nowhere")
    declare(tree, {"big": SMALL[:-1] + ", larger: huge}"})
    assert [fault.split(": ")[1] for fault in faults_of(tree)] == ["default", "profiles.big.larger", "training.compute"]


def test_profiles_that_cannot_be_read_are_not_held_against_models(tree: Path) -> None:
    train_with(tree, "compute: gpu-small")
    declare(tree, {"small": SMALL.replace("cpu: 2", "cpu: many")})
    (fault,) = faults_of(tree)
    assert "profiles.small.cpu" in fault
