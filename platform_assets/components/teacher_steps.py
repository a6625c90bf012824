"""Steps that train: `trained`, the network that a model's candidates are made from, and `sweep`, one trial of the declared search.

A trial is trained, held to its profile and paid for like any training, and its network is stored under what it learned from: the best
trial is then simply found by `trained`, and goes on to compression and gates like any other. How one training runs is in training_run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets import keys
from platform_assets.components.live import Watched, telemetry_metadata, watching
from platform_assets.components.own_network import digest_source
from platform_assets.components.retraining_history import past_retrainings
from platform_assets.components.step import Outcome, Step, fingerprint, picture, profile_here
from platform_assets.components.training_run import TrainingJob, describe_attempts, hold_training, train
from platform_assets.errors import GivenUpError, ReleaseError, TrainingError
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.guarantee import Guarantee
from platform_assets.specs.model import HIGHER_IS_BETTER, ModelSpec, RangeSpec, TrainingSpec
from platform_assets.specs.record_json import from_mapping
from platform_assets.specs.records import Training, TrainingSet
from platform_assets.specs.sweep import Sweep
from platform_assets.stages.telemetry.progress import progress_lines

if TYPE_CHECKING:
    from resources.studies import Study, Trial
    from resources.trainings import TrainingFolder

CODE_VERSION = "1"
_BASELINE_SECONDS = 20.0


@dataclass(frozen=True)
class Teacher:
    """A stored training: its artefact, what was noted of it, and the MLflow run that was opened meanwhile."""

    digest: str
    note: dict[str, Any]
    reused: bool
    mlflow_run: str | None


def train_teacher(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Train the declared network in a process of its own, log it to MLflow, set it beside a tuned baseline.

    Where a sweep over the same rows found better values than the declared ones, its best network is taken instead.
    """
    del dataset
    parts = step.parts
    training_set = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    data = parts.artefacts.path(training_set.digest)
    sweep = _sweep_of(model, training_set, step)
    base = None if sweep else find_start(model, step)
    chosen = _with_changes(model, sweep.changes if sweep else _shorter(model) if base else {})
    with ThreadPoolExecutor(1) as pool:  # the trainer is a process of its own: another core fits the trees meanwhile
        fitting = pool.submit(_baseline, model, step, data=data, training_set=training_set)
        teacher = _obtain(chosen, step, training_set=training_set, base=base)
        baseline = fitting.result()
    result = teacher.note["result"]
    record = Training(
        digest=teacher.digest, training_set=training_set.digest, parameters=result["parameters"],
        size_bytes=result["size_bytes"], holdout=result["holdout"],
        calibration=result["calibration"], baseline=baseline, seconds=result["seconds"], warm_start=base,
        privacy=from_mapping(Guarantee, result["privacy"]) if result.get("privacy") else None,
    )  # fmt: skip
    folder = parts.artefacts.path(teacher.digest)
    run_id = parts.registry.log_training(
        model.name, chosen.training.learning().model_dump(mode="json"),
        {f"holdout_{name}": value for name, value in record.holdout.items()}, json.loads((folder / "curve.json").read_text()),
        {"training_digest": teacher.digest, "training_set": training_set.digest, "dagster_run": step.context.run.run_id,
         **({"warm_start": base} if base else {})},
        run_id=teacher.mlflow_run,
    )  # fmt: skip
    shown = {
        **_training_metadata(chosen, record, data, folder),
        **telemetry_metadata(
            folder, profile=teacher.note["profile"], profiles=parts.catalogue.compute.profiles, since=teacher.note["attempts"][-1]["began"]
        ),
        **describe_attempts(teacher.note["attempts"]),
        "began_with": f"{result['warm_share']:.0%} of the weights of training {base[:12]}" if base else "fresh weights",
        **({"from_sweep": f"trial {sweep.best} of {sweep.trials}: {_words(sweep.changes)}"} if sweep else {}),
    }
    return Outcome(record, teacher.digest, {**shown, "reused": teacher.reused, "mlflow_run": run_id})


def _baseline(model: ModelSpec, step: Step, *, data: Path, training_set: TrainingSet) -> dict[str, float]:
    from platform_assets.stages.evaluation.baseline import fit_baseline

    artefacts, mark = step.parts.artefacts, fingerprint("baseline", CODE_VERSION, model.target, training_set.digest)
    known = artefacts.recall(mark)
    if known is not None:
        return dict(known[1]["holdout"])
    holdout = fit_baseline(data, kind=model.target.kind, budget_seconds=_BASELINE_SECONDS).holdout
    artefacts.remember(mark, training_set.digest, {"holdout": holdout})
    return holdout


def _obtain(
    model: ModelSpec, step: Step, *, training_set: TrainingSet, base: str | None = None, looks: tuple[Callable[[Path], None], ...] = (),
    give_up: Callable[[], str | None] | None = None,
) -> Teacher:  # fmt: skip
    """Return what was trained from these rows with these values (and these first weights) before, or train it now."""
    artefacts = step.parts.artefacts
    mark = fingerprint("trained", CODE_VERSION, *_learnt(model), training_set.digest, *([base] if base else []))
    known = artefacts.recall(mark)
    if known is not None:
        return Teacher(*known, reused=True, mlflow_run=None)
    with hold_training(step, f"{model.name}-{mark[:16]}") as place:
        known = artefacts.recall(mark)  # another run may have stored it while this one waited
        if known is not None:
            return Teacher(*known, reused=True, mlflow_run=None)
        data, profile = artefacts.path(training_set.digest), profile_here(keys.model_key(model.name, "trained"), step.parts)
        watched = Watched(step.context.asset_key.path, model=model.name, tenant=model.tenant)
        try:
            with watching(step, watched, out=place.out) as watch:
                job = TrainingJob(model, data, profile, warm_start=artefacts.path(base) if base else None)
                trained = train(step, job, place, looks=[watch.look, *looks], give_up=give_up)
        except GivenUpError:
            place.remove()
            raise
        return _store(place, step, mark=mark, attempts=trained.attempts, mlflow_run=watch.mlflow_run)


def find_start(model: ModelSpec, step: Step) -> str | None:
    """Return the training whose weights the retraining under way is to begin with, by digest; None from scratch."""
    pending = [past for past in past_retrainings(step.parts, model.name) if past.outcome == "pending"]
    base = pending[-1].base if pending else None
    if base is None or model.retraining.warm_start is None:
        return None
    try:
        step.parts.artefacts.path(base)
    except ReleaseError:
        step.say(f"The weights of training {base[:12]} are not kept any more; this one begins from scratch.")
        return None
    return base


def _shorter(model: ModelSpec) -> dict[str, int]:
    assert model.retraining.warm_start is not None
    return {"epochs": max(1, round(model.retraining.warm_start.epochs * model.training.epochs))}


def _store(place: TrainingFolder, step: Step, *, mark: str, attempts: list[dict[str, Any]], mlflow_run: str | None) -> Teacher:
    note = {"result": json.loads((place.out / "result.json").read_text()), "attempts": attempts, "profile": attempts[-1]["profile"]}
    digest = step.parts.artefacts.put(place.out)
    step.parts.artefacts.remember(mark, digest, note)
    place.remove()
    return Teacher(digest, note, reused=False, mlflow_run=mlflow_run)


def _training_metadata(model: ModelSpec, record: Training, data: Path, folder: Path) -> dict[str, Any]:
    from platform_assets.stages.evaluation.pictures import draw_training

    lead = model.leading_metric
    return {
        f"holdout_{lead}": record.holdout[lead],
        f"baseline_{lead}": record.baseline[lead],
        "parameters": record.parameters,
        "size_bytes": record.size_bytes,
        "architecture": f"{model.training.architecture}, width {model.training.width}, depth {model.training.depth}",
        "seconds": record.seconds,
        **(
            {"privacy": record.privacy.sentence, "epsilon": record.privacy.epsilon, "delta": record.privacy.delta} if record.privacy else {}
        ),
        "training": picture(draw_training(folder, data=data, kind=model.target.kind)),
    }


# --- the search


def run_trial(model: ModelSpec, dataset: DatasetSpec, step: Step) -> Outcome:
    """Train one trial of the declared search; one that falls behind the others is given up early, one that diverges has failed."""
    del dataset
    training_set = step.read(keys.model_key(model.name, "training_set"), TrainingSet)
    study = open_study(model, training_set, step)
    _close_dead_trials(study, step)
    trial = study.ask(run_id=step.context.run.run_id)
    step.say(f"Trial {trial.number}: {_words(trial.changes)}.")
    ended, value, note = "failed", None, ""
    try:
        hopeless = _Hopeless(trial, metric=f"calibration_{model.leading_metric}")
        chosen = _with_changes(model, trial.changes)
        teacher = _obtain(chosen, step, training_set=training_set, looks=(hopeless.look,), give_up=hopeless.reason)
        ended, value = "complete", float(teacher.note["result"]["calibration"][model.leading_metric])
        study.finish(trial, value, note={"digest": teacher.digest})
    except GivenUpError as error:
        ended, note = "pruned", str(error)
        study.prune(trial)
    except TrainingError as error:
        note = str(error)
        study.fail(trial.number, again=False)
    except BaseException:
        study.fail(trial.number, again=True)
        raise
    record = _record(model, study, training_set)
    shown = {} if value is None else {f"calibration_{model.leading_metric}": value}
    metadata = {
        **shown, "trial": trial.number, "ended": ended,
        "values": dg.MetadataValue.json(trial.changes), "note": note, "best_trial": record.best, "best": record.value,
        "trials": dg.MetadataValue.md(_table(model, study)),
    }  # fmt: skip
    return Outcome(record, fingerprint(record, trial.number), metadata)


def open_study(model: ModelSpec, training_set: TrainingSet, step: Step) -> Study:
    """Open the study of this search over these rows; another declaration, or other rows, are another study."""
    from resources.studies import Range

    training = model.training
    fixed = {name: value for name, value in training.learning().model_dump(mode="json").items() if name not in training.search}
    space = {
        name: Range(choice.low, choice.high, log=choice.log) if isinstance(choice, RangeSpec) else choice
        for name, choice in training.search.items()
    }
    mark = fingerprint(fixed, digest_source(training.module), repr(sorted(space.items())), model.target, training_set.digest)
    name = f"{model.name}-{mark[:16]}"
    declared = {field: getattr(training, field) for field in space}
    return step.parts.open_study(name, space=space, declared=declared, higher_is_better=HIGHER_IS_BETTER[model.leading_metric])


class _Hopeless:
    """Tells the study each epoch's figure and remembers when it says that the trial will come to nothing."""

    def __init__(self, trial: Trial, *, metric: str) -> None:
        self._trial, self._metric, self._told = trial, metric, 0
        self._reason: str | None = None

    def look(self, out: Path) -> None:
        """Read the epochs that are new in progress.jsonl."""
        for line in progress_lines(out):
            if line["step"] == "train/epoch" and line["epoch"] > self._told:
                self._told = int(line["epoch"])
                if self._trial.is_hopeless(line[self._metric], epoch=self._told) and self._told < line["epochs"]:
                    self._reason = f"after {self._told} epochs {self._metric} {line[self._metric]:.4f} lies behind the median of the trials"

    def reason(self) -> str | None:
        """Say why the trial is given up, or None."""
        return self._reason


def _close_dead_trials(study: Study, step: Step) -> None:
    """Trials of runs that ended without a word are tried again."""
    for number, run_id in study.open_trials().items():
        run = step.context.instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            study.fail(number, again=True)


def _sweep_of(model: ModelSpec, training_set: TrainingSet, step: Step) -> Sweep | None:
    """Return the sweep over these very rows whose best trial was not the declared one."""
    if not model.training.search:
        return None
    record = step.find(keys.model_key(model.name, keys.SWEEP), Sweep)
    if record is None or record.training_set != training_set.digest or record.declared != _declared(model):
        return None
    return record if record.beats_declared else None


def _declared(model: ModelSpec) -> str:
    return fingerprint(*_learnt(model), model.training.search and repr(sorted(model.training.search.items())))


def _learnt(model: ModelSpec) -> tuple[object, ...]:
    """Return what decides the weights beside the rows; without a network of the user's own, its source is nothing."""
    return model.training.learning(), digest_source(model.training.module), model.target


def _with_changes(model: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    training = TrainingSpec.model_validate({**model.training.model_dump(), **changes})
    return model.model_copy(update={"training": training})


def _record(model: ModelSpec, study: Study, training_set: TrainingSet) -> Sweep:
    ended, counts = study.ended(), study.counts()
    best = ended[0] if ended else None
    return Sweep(
        training_set=training_set.digest, declared=_declared(model), trials=sum(counts.values()), counts=counts,
        best=best.number if best else None, value=best.value if best else None, changes=best.changes if best else {},
        first={name: getattr(model.training, name) for name in model.training.search},
    )  # fmt: skip


def _table(model: ModelSpec, study: Study) -> str:
    names = list(model.training.search)
    head = f"| trial | {model.leading_metric} | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n"
    return head + "\n".join(
        f"| {trial.number} | {trial.value:.4f} | {' | '.join(_word(trial.changes[name]) for name in names)} |" for trial in study.ended()
    )


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in changes.items())


def _word(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
