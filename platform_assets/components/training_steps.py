"""Steps around a training: the set that is learned from, the compressed candidates of what was learned. Torch runs in its own process."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.left_out import LEFT_OUT_FILE, LeftOut, find_left_out
from platform_assets.components.onlookers import onlookers, show_progress
from platform_assets.components.step import Outcome, Step, build_check, fingerprint, picture
from platform_assets.components.training_lease import devices_of, kept_alive, leased
from platform_assets.errors import ReleaseError, TrainingError
from platform_assets.specs.candidates import SearchResult
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import HIGHER_IS_BETTER, ModelSpec
from platform_assets.specs.record_json import from_mapping, to_json
from platform_assets.specs.records import TablePin, Training, TrainingSet

if TYPE_CHECKING:
    from platform_assets.stages.placement.resolution import Placement
    from resources.parts import Parts

CODE_VERSION = "1"
_KILLED = re.compile(r"failed with code -\d+")  # by a signal: what it had made is whole, and another one goes on with it


@contextmanager
def scratch(step: Step) -> Iterator[Path]:
    """A folder beside the artefacts (same file system, so that storing it is a rename), gone afterwards."""
    root = step.parts.settings.home.root / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        yield Path(folder)


def make_training_set(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Join features as of each row's event time, split in time order, pin everything that was read."""
    from platform_assets.stages.features.training_set import build_training_set, without_keys

    parts = step.parts
    protected = step.read(keys.dataset_key(dataset.name, "protected"), TablePin)
    views = {view: step.read(keys.features_key(dataset.name, view), TablePin) for view in model.features.views}
    pins = [protected.content_hash, *(pin.content_hash for pin in views.values())]
    left_out = find_left_out(model, step)
    if left_out.keys:
        left_out = left_out.among(parts.tables.read(protected, columns=[dataset.key, model.target.column]), dataset.key)
    if left_out.keys:
        pins.append(fingerprint(left_out.keys))
    mark = fingerprint("training_set", CODE_VERSION, dataset, model.features, model.target, model.split, *pins)
    known = parts.artefacts.recall(mark)
    note: dict[str, Any]
    if known is None:
        rows = without_keys(parts.tables.read(protected), left_out.keys, key=dataset.key)
        with scratch(step) as folder:
            built = build_training_set(rows, model=model, dataset=dataset, store=parts.features, pins=views, folder=folder)
            digest = parts.artefacts.put(folder)
        note = {"rows": built.rows, "first_event": built.first_event, "last_event": built.last_event}
        parts.artefacts.remember(mark, digest, note)
    else:
        digest, note = known
    record = TrainingSet(digest, note["rows"], protected, views, note["first_event"], note["last_event"], _keep(left_out, step))
    metadata = {
        "rows": dg.MetadataValue.json(record.rows), "first_event": record.first_event, "last_event": record.last_event, "digest": digest,
        "read": dg.MetadataValue.json({pin.table: pin.version for pin in (protected, *views.values())}), "reused": known is not None,
        "faulty_rows_left_out": len(left_out.faulty), "unjudged_rows_left_out": len(left_out.unjudged),
    }  # fmt: skip
    return Outcome(record, digest, metadata)


def _keep(left_out: LeftOut, step: Step) -> str | None:
    """Store the keys that were left out, so that a reproduction leaves them out too."""
    if not left_out.keys:
        return None
    with scratch(step) as folder:
        (folder / LEFT_OUT_FILE).write_text(json.dumps(left_out.keys))
        return step.parts.artefacts.put(folder)


def run_program(
    step: Step, module: str, spec: dict[str, Any], folder: Path, paths: dict[str, Path], *, model: ModelSpec, placement: Placement
) -> None:
    """Run one of our programs through Dagster Pipes, so that its metrics and progress show live in the run; GPUs are leased for it."""
    from dagster._core.errors import DagsterPipesExecutionError  # has no public name

    from resources.machine import pinned
    from resources.settings import child_environment

    spec_file = folder / "spec.json"
    spec_file.write_text(json.dumps(spec))
    command = [
        sys.executable,
        "-m",
        module,
        "--spec",
        str(spec_file),
        *(text for flag, path in paths.items() for text in (flag, str(path))),
        "--threads",
        str(placement.got.threads),
    ]
    try:
        with (
            leased(step, model, placement) as (lease, _),
            kept_alive(step, lease),
            onlookers([show_progress(step)], paths["--out"]),
            pinned(placement),
        ):
            environment = {**child_environment(step.parts.settings), **placement.environment(), **devices_of(step, lease)}
            dg.PipesSubprocessClient(env=environment).run(context=step.context, command=command)
    except DagsterPipesExecutionError as error:
        raise TrainingError(f"{module} failed: {error}. Its output stands in this step's stderr.") from error


def search_candidates(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Search compressed candidates within the declared time, and measure each on the same rows and this CPU.

    What was found is remembered once it is judged, and only where something was: a search that failed or found nothing is searched anew.
    """
    del dataset
    parts = step.parts
    key = keys.model_key(model.name, "candidates")
    training = step.read(keys.model_key(model.name, "trained"), Training)
    mark = fingerprint("candidates", CODE_VERSION, model.compression, model.target, training.digest)
    known = _known_search(parts, mark)
    if known is not None:
        return _candidates_outcome(key, model, known, reused=True)
    work = parts.settings.home.root / "search" / mark[:16]  # kept until stored: a killed search goes on where it was
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "out" / "result.json").is_file():  # else it is whole: what failed was storing it
        spec = {
            **model.compression.model_dump(mode="json", exclude={"compute", "budget"}), "kind": model.target.kind,
            "budget_seconds": model.compression.budget.total_seconds(), "aed_per_core_hour": _price_of_a_core(step, model),
        }  # fmt: skip
        paths = {
            "--training": parts.artefacts.path(training.digest),
            "--data": parts.artefacts.path(training.training_set),
            "--out": work / "out",
        }
        placement = step.place(threads=model.training.threads)
        try:
            run_program(step, "platform_assets.stages.compression", spec, work, paths, model=model, placement=placement)
        except TrainingError as error:
            if not _KILLED.search(str(error)):  # with its time spent and what failed in it, the next one would come to the same
                shutil.rmtree(work)
            raise
    result = _store_candidates(step, work / "out")
    shutil.rmtree(work)
    outcome = _candidates_outcome(key, model, result, reused=False)
    if len(result.candidates) > 1:
        parts.artefacts.remember(mark, training.digest, json.loads(to_json(result)))
    return outcome


def _known_search(parts: Parts, mark: str) -> SearchResult | None:
    """Return what this very search found before, where all of it is still whole."""
    known = parts.artefacts.recall(mark)
    result = from_mapping(SearchResult, known[1]) if known else None
    try:
        for one in result.candidates if result else ():
            parts.artefacts.path(one.digest)
    except ReleaseError:
        return None
    return result


def _candidates_outcome(key: Sequence[str], model: ModelSpec, result: SearchResult, *, reused: bool) -> Outcome:
    return Outcome(result, fingerprint(result), _candidate_metadata(model, result, reused=reused), _candidate_checks(key, model, result))


def _price_of_a_core(step: Step, model: ModelSpec) -> float:
    _, profile = step.parts.catalogue.profile_of(model.name, "candidates")
    return profile.price_aed_per_hour / profile.cpu


def _store_candidates(step: Step, out: Path) -> SearchResult:
    result = from_mapping(
        SearchResult, {name: value for name, value in json.loads((out / "result.json").read_text()).items() if name != "seconds"}
    )
    stored = [replace(found, digest=step.parts.artefacts.put(out / "candidates" / found.name)) for found in result.candidates]
    return SearchResult(tuple(stored), result.rejected)


def _candidate_metadata(model: ModelSpec, result: SearchResult, *, reused: bool) -> dict[str, Any]:
    from platform_assets.stages.evaluation.pictures import draw_frontier

    lead = model.leading_metric
    head = (
        f"| candidate | {lead} | loss to choose by | size KiB | CPU us/row b1 | b32 "
        "| p50 ms | p99 ms | AED/1M | agreement | worst group |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = "\n".join(
        f"| {c.name} | {c.metrics[lead]:.4f} | {c.drop:+.4f} | {c.size_bytes / 1024:.1f} | {c.cpu_us_b1:.0f} {_range(c.cpu_us_b1_range)}"
        f"| {c.cpu_us_b32:.1f} {_range(c.cpu_us_b32_range)}| {c.latency_ms_p50:.3f} | {c.latency_ms_p99:.3f} | {c.aed_per_million:.5f} "
        + (f"| {c.faithfulness.agreement:.3f} | {c.faithfulness.group} {-c.faithfulness.group_drop:+.3f} |" if c.faithfulness else "| | |")
        for c in sorted(result.candidates, key=lambda one: one.cpu_us_b1)
    )
    return {
        "figures": dg.MetadataValue.md(head + rows), "reused": reused,
        "frontier": picture(draw_frontier(result.candidates, kind=model.target.kind)),
        "not_made": dg.MetadataValue.json({rejection.name: rejection.why for rejection in result.rejected}),
    }  # fmt: skip


def _range(ends: Sequence[float]) -> str:
    return f"({ends[0]:.3g} to {ends[1]:.3g}) " if ends else ""


CANDIDATE_CHECKS = ("onnx_agrees_with_torch", "metric_drop_within_tolerance", "p99_within_budget")
_TOLERATED_DIFFERENCE = 1e-3  # float32 against float32 in another order of summation


def _candidate_checks(key: Sequence[str], model: ModelSpec, result: SearchResult) -> list[dg.AssetCheckResult]:
    lead, spec = model.leading_metric, model.compression
    teacher = next(candidate for candidate in result.candidates if candidate.name == "teacher")
    drops = {c.name: c.surely_lost for c in result.candidates}
    fit = [name for name, drop in drops.items() if drop <= spec.tolerate_drop and name != "teacher"]
    fast = [c.name for c in result.candidates if c.latency_ms_p99 <= spec.latency_ms_p99]
    direction = "higher" if HIGHER_IS_BETTER[lead] else "lower"
    warn = dg.AssetCheckSeverity.WARN
    return [
        build_check(key, CANDIDATE_CHECKS[0], passed=teacher.max_difference <= _TOLERATED_DIFFERENCE, max_difference=teacher.max_difference,
                    sentence=f"ONNX and torch differ by at most {teacher.max_difference:.2e} (allowed {_TOLERATED_DIFFERENCE:g})."),
        build_check(key, CANDIDATE_CHECKS[1], passed=bool(fit), severity=warn, drops=dg.MetadataValue.json(drops),
                    sentence=f"Within {spec.tolerate_drop:g} {lead} ({direction} is better) of the teacher: {', '.join(fit) or 'none'}."),
        build_check(key, CANDIDATE_CHECKS[2], passed=bool(fast), severity=dg.AssetCheckSeverity.ERROR,
                    sentence=f"One row's p99 within {spec.latency_ms_p99:g} ms: {', '.join(fast) or 'no candidate'}."),
    ]  # fmt: skip
