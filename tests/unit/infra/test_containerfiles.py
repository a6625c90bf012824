"""The recipes of the images: what they may not hold, what they must say, and what is laid beside them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from resources import commit
from resources.images import KINDS, main, requirements, write_context

PORTS = {"inference": {8151}, "platform": {4000}, "trainer": set()}


@pytest.fixture(scope="module")
def recipes(checkout: Path) -> dict[str, str]:
    found = {file.suffix.removeprefix("."): file.read_text() for file in (checkout / "infra" / "docker").glob("Containerfile.*")}
    assert set(found) == set(KINDS)
    return {kind: re.sub(r"\\\n\s*", "", text) for kind, text in found.items()}


def lines(recipe: str, word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in recipe.splitlines() if line.startswith(f"{word} ")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_is_made_from_the_named_base_alone_and_fetches_nothing(recipes: dict[str, str], kind: str) -> None:
    recipe = recipes[kind]
    assert "BASE" in lines(recipe, "ARG")  # without a default: whoever builds names it
    assert {line.split()[0] for line in lines(recipe, "FROM")} == {"${BASE}"}
    assert "latest" not in recipe
    assert not re.search(r"\b(curl|wget|apt-get|ADD|git clone|https?://)", recipe)
    assert all("--no-index" in run for run in lines(recipe, "RUN"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_ends_as_a_user_that_is_nobody_and_says_what_it_is_made_of(recipes: dict[str, str], kind: str) -> None:
    final = recipes[kind].rpartition("FROM ")[2]
    assert lines(final, "USER") == ["10001:10001"]
    assert final.index("USER") > final.rindex("COPY")  # nothing is written after it
    (label,) = lines(final, "LABEL")
    for name in ("image.title", "image.licenses", 'image.revision="${COMMIT}"', "ae.falaj.sbom"):
        assert name in label
    assert {int(port) for port in lines(final, "EXPOSE")} == PORTS[kind]


def test_the_image_of_manifests_is_started_as_its_recipe_starts_it(recipes: dict[str, str], checkout: Path) -> None:
    (code, *_), found = lines(recipes["platform"], "CMD"), (checkout / "infra" / "kubernetes" / "base" / "dagster.yaml").read_text()
    deployment = next(yaml.safe_load_all(found))["spec"]["template"]["spec"]["containers"][0]
    assert json.loads(code) == [*deployment["command"], *deployment["args"]]
    assert "DAGSTER_HOME=/opt/falaj/instance" in recipes["platform"]


def test_the_inference_image_holds_neither_torch_nor_dagster_nor_a_data_library(tmp_path: Path) -> None:
    write_context("inference", tmp_path)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    names = {one["name"] for one in bill["components"]}
    assert {"onnxruntime", "numpy"} <= names
    installed = {path.name.lower().partition("-")[0] for path in (tmp_path / "site").iterdir()}
    for absent in ("torch", "dagster", "pandas", "polars", "pyarrow", "feast", "pydantic", "mlflow"):
        assert absent not in names | installed
    assert (tmp_path / "site" / "platform_assets" / "stages" / "serving" / "following.py").is_file()
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 250 << 20  # on top of its base


def test_the_trainers_image_holds_every_architecture_and_no_dagster(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-2.13.0-cp311-cp311-linux_x86_64.whl").touch()
    write_context("trainer", tmp_path)
    ours = {path.stem for path in (tmp_path / "site" / "platform_assets" / "networks" / "architectures").iterdir()}
    assert {"tabular_mlp", "text_transformer", "vision_transformer", "convolutional", "custom"} <= ours
    site = tmp_path / "site"
    imported = {
        name
        for file in site.rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) (platform_assets[\w.]*)", file.read_text(), re.MULTILINE)
    }
    assert [name for name in imported if not any((site / name.replace(".", "/")).with_suffix(end).exists() for end in (".py", ""))] == []
    assert (site / "platform_assets" / "networks" / "encoding.py").is_file()  # which architectures alone import
    assert not (site / "platform_assets" / "components").exists()
    assert not any(re.match(r"dagster(?!-pipes)", one) for one in requirements("trainer"))
    (component,) = json.loads((tmp_path / "sbom.cdx.json").read_text())["components"]
    assert component["purl"] == "pkg:pypi/torch@2.13.0"


def test_the_platforms_tree_says_its_commit_where_there_is_no_git(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "dagster-1.13.27-py3-none-any.whl").touch()
    write_context("platform", tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setattr(commit, "COMMIT_FILE", tmp_path / "tree" / commit.COMMIT_FILE.name)
    monkeypatch.setenv("PATH", "")
    assert commit.find_commit() == head
    monkeypatch.setattr(commit, "COMMIT_FILE", tmp_path / "none")
    assert commit.find_commit() == "unversioned"


def test_the_platforms_image_asks_for_what_the_project_depends_on() -> None:
    assert {"dagster", "setuptools>=77", "torch==2.13.0"} <= set(requirements("platform"))


@pytest.mark.parametrize(
    "arguments", [[], ["inference", "base:1"], ["server", "base:1", "a:1"], ["inference", "base", "a:1"], ["inference", "base:latest", "a:1"],
                  ["inference", "registry:5000/base", "a:1"], ["inference", "base:1", "a"], ["inference", "base:1", "a:latest"]]
)  # fmt: skip
def test_the_script_refuses_what_is_not_pinned_in_one_sentence(checkout: Path, arguments: list[str]) -> None:
    done = subprocess.run(["sh", checkout / "infra" / "docker" / "build.sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "right would be inference, platform or trainer, a base image by version or digest, and NAME:TAG" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["context", "server", "x"], ["requirements", "inference"]])
def test_the_module_says_what_it_takes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "right would be" in capsys.readouterr().err
