"""`falaj reproduce`: a release's training made again from its pinned inputs, in a scratch folder, and held against what was recorded."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.components import subjects
from platform_assets.components.left_out import LEFT_OUT_FILE
from platform_assets.errors import DataError, ReleaseError, TrainingError
from platform_assets.main_job.operations import find_release
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.record_json import from_mapping
from platform_assets.specs.records import TablePin
from platform_assets.stages.training.torchrun import python_arguments
from resources.settings import Settings, child_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from platform_assets.manifests import ReleaseFiles
    from platform_assets.networks.conditions import Conditions
    from resources.parts import Parts

_ACTION = "reproduction"


@dataclass(frozen=True)
class Recorded:
    """What a release says of its own making: the declarations of then, pinned tables, digests of training set and trainings."""

    model: ModelSpec
    dataset: DatasetSpec
    protected: TablePin
    views: dict[str, TablePin]
    training_set: str
    training: str
    warm_start: str | None
    left_out: str | None


def reproduce(settings: Settings, release: str, *, console: Console) -> dict[str, Any]:
    """Train MODEL@VERSION again and compare; the outcome is equal, within_tolerance, different or erased, and stands in the audit log.

    Bad names, a missing training and a trainer that fails raise an error of ours; a difference does not.
    """
    name, version = _parse(release)
    parts, digest = find_release(settings, name, version)
    recorded = _read_recorded(parts.releases.open(digest))
    erased = subjects.erased_training_sets(parts).get(recorded.training_set)
    if erased is not None:
        return _say_erased(parts, {"model": name, "version": version, "release": digest}, recorded, by=erased)
    root = settings.home.root / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        found = _make_again(parts, recorded, Path(folder), console=console)
    value = {"model": name, "version": version, "release": digest, "training": recorded.training, **found}
    detail = {"release": digest, "outcome": value["outcome"], "why": value["sentence"]}
    parts.audit.append(_ACTION, subject=f"model/{name}", actor="falaj reproduce", detail=detail)
    return value


def _say_erased(parts: Parts, told: Mapping[str, Any], recorded: Recorded, *, by: Mapping[str, Any]) -> dict[str, Any]:
    """Name the erasure that took the inputs away: what may not be kept cannot be trained on again, and that is no failure."""
    cause = f"erasure {by['detail']['mark'][:12]}" if "mark" in by["detail"] else f"retention of {by['subject']}"
    sentence = f"its inputs were erased on {by['at'][:10]} ({cause}, audit log entry {by['seq']}), so that it cannot be made again"
    detail = {"release": told["release"], "outcome": "erased", "why": sentence}
    parts.audit.append(_ACTION, subject=f"model/{told['model']}", actor="falaj reproduce", detail=detail)
    inputs = {"digest": recorded.training_set, "found": None, "gone": [recorded.protected.table]}
    return {**told, "training": recorded.training, "training_set": inputs, "outcome": "erased", "sentence": sentence}


def _parse(release: str) -> tuple[str, str]:
    name, sign, version = release.partition("@")
    if not (name and sign and version):
        raise ReleaseError(f"{release!r} names no release; write MODEL@VERSION, with a version that `falaj release list MODEL` prints.")
    return name, version


def _read_recorded(bundle: ReleaseFiles) -> Recorded:
    lineage = json.loads(bundle["lineage.json"])
    declared = json.loads(bundle["declaration.json"])
    if lineage.get("privacy") is not None:
        spent = lineage["privacy"]["epsilon"]
        raise ReleaseError(
            f"{bundle.version} was trained with differential privacy: made again it would draw other noise and spend epsilon {spent:.3g} "
            "on the same rows once more; what was recorded of it stands in lineage.json"
        )
    return Recorded(
        model=ModelSpec.model_validate(declared["model"]),
        dataset=DatasetSpec.model_validate(declared["dataset"]),
        protected=from_mapping(TablePin, lineage["dataset"]),
        views={name: from_mapping(TablePin, pin) for name, pin in lineage["views"].items()},
        training_set=lineage["training_set"],
        training=lineage["training"],
        warm_start=lineage["warm_start"],
        left_out=lineage.get("left_out"),
    )


def _make_again(parts: Parts, recorded: Recorded, folder: Path, *, console: Console) -> dict[str, Any]:
    training = parts.artefacts.path(recorded.training)
    base = _find_base(parts, recorded)
    console.print("Building the training set again from the pinned table versions ...")
    data, told = _training_set(parts, recorded, folder)
    if data is None:
        sentence = (
            f"the training set made again from the same table versions is {told['found'][:12]}, {recorded.training_set[:12]} was recorded; "
            "the program that builds it is another one, so nothing was trained"
        )
        return {"training_set": told, "outcome": "different", "sentence": sentence}
    from platform_assets.networks.comparison import compare_weights
    from platform_assets.networks.conditions import read_conditions
    from platform_assets.stages.evaluation.reproduction import judge_reproduction

    console.print(f"Training again, as {recorded.training[:12]} was trained ...")
    noted = read_conditions(training)
    _train(parts.settings, data, training, folder / "out", noted=noted, base=base)
    now = read_conditions(folder / "out")[-1]
    weights = compare_weights(training, folder / "out")
    before, after = (json.loads((place / "result.json").read_text())["holdout"] for place in (training, folder / "out"))
    lead = recorded.model.leading_metric
    judged = judge_reproduction(
        weights, recorded=noted, again=now, metric=lead, before=before[lead], after=after[lead], tolerance=recorded.model.training.tolerance
    )
    return {
        "training_set": told,
        "conditions": {"recorded": [asdict(one) for one in noted], "now": asdict(now)},
        "weights": asdict(weights),
        "holdout": {"recorded": before, "now": after, "leading_metric": lead, "tolerance": recorded.model.training.tolerance},
        "outcome": judged.outcome,
        "sentence": judged.sentence + _gone_sentence(told["gone"]),
    }


def _training_set(parts: Parts, recorded: Recorded, folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """Build it from the pins; where a pinned version is gone the stored one is taken. None where it comes out as another one."""
    from platform_assets.stages.features.schema import EVENT_TIMESTAMP
    from platform_assets.stages.features.training_set import build_training_set, without_keys
    from resources.artifacts import folder_digest
    from resources.feast_store import FeastFeatureStore

    wanted = {recorded.protected: recorded.dataset.key, **dict.fromkeys(recorded.views.values(), EVENT_TIMESTAMP)}
    gone = [f"{pin.table} version {pin.version}" for pin, column in wanted.items() if not _is_there(parts, pin, column=column)]
    left_out = _read_left_out(parts, recorded.left_out)
    if left_out is None:
        gone.append("the keys that were left out")
    if gone or left_out is None:
        return parts.artefacts.path(recorded.training_set), {"digest": recorded.training_set, "found": None, "gone": gone}
    store = FeastFeatureStore(folder / "feast", tables=parts.tables)  # a registry of its own: the home's is not touched
    rows = without_keys(parts.tables.read(recorded.protected), left_out, key=recorded.dataset.key)
    build_training_set(
        rows, model=recorded.model, dataset=recorded.dataset, store=store, pins=recorded.views, folder=folder / "data"
    )  # fmt: skip
    found = folder_digest(folder / "data")
    return folder / "data" if found == recorded.training_set else None, {"digest": recorded.training_set, "found": found, "gone": []}


def _read_left_out(parts: Parts, digest: str | None) -> list[str] | None:
    """Return the keys that the training set was made without; None where what names them is gone."""
    if digest is None:
        return []
    try:
        found: list[str] = json.loads((parts.artefacts.path(digest) / LEFT_OUT_FILE).read_bytes())
    except ReleaseError:
        return None
    return found


def _is_there(parts: Parts, pin: TablePin, *, column: str) -> bool:
    try:
        parts.tables.read(pin, columns=[column])
    except (DataError, FileNotFoundError):  # the version is not in the log, or its files were vacuumed
        return False
    return True


def _find_base(parts: Parts, recorded: Recorded) -> Path | None:
    if recorded.warm_start is None:
        return None
    try:
        return parts.artefacts.path(recorded.warm_start)
    except ReleaseError as error:
        base, made = recorded.warm_start[:12], recorded.training[:12]
        raise ReleaseError(
            f"training {made} began with the weights of training {base}, which are not kept any more; it cannot be made again"
        ) from error


def _train(settings: Settings, data: Path, recorded: Path, out: Path, *, noted: Sequence[Conditions], base: Path | None) -> None:
    plan = json.loads((recorded / "plan.json").read_text())
    last = noted[-1] if noted else None
    files: dict[str, Mapping[str, Any]] = {"spec": {**plan, "threads": last.threads * last.processes if last else plan["threads"]}}
    if last is not None:
        files["run"] = asdict(last.run_plan())
    out.mkdir()
    command = [sys.executable, *python_arguments("platform_assets.stages.training", processes=last.processes if last else 1)]
    for name, value in files.items():
        file = out.parent / f"{name}.json"
        file.write_text(json.dumps(value))
        command += [f"--{name}", str(file)]
    command += ["--data", str(data), "--out", str(out), "--cache", str(out.parent / "cache")]
    command += ["--warm-start", str(base)] if base is not None else []
    process = subprocess.Popen(
        command, env=child_environment(settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    try:
        _, said = process.communicate()
    finally:
        process.terminate()  # a trainer outlives its parent; one that has ended is not reached
        process.wait()
    if process.returncode != 0:
        last_words = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise TrainingError(f"the training made again ended with status {process.returncode}: {last_words}")


def _gone_sentence(gone: Sequence[str]) -> str:
    return f"; the training set was taken from the store, since these tables are gone: {', '.join(gone)}" if gone else ""
