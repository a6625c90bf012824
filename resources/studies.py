"""Hyperparameter studies in Optuna's own database: trials that several runs may ask for at once. What they train is decided elsewhere."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

Scalar = bool | int | float | str
_SEED = 7
_FIRST_TRIALS = 4  # are never pruned: a median of fewer says nothing
_FIRST_EPOCHS = 1  # of a trial, in which the warm-up is under way


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are whole."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Range | Sequence[Scalar]]


@dataclass(frozen=True)
class Ended:
    """A trial that was trained to its end."""

    number: int
    value: float
    changes: dict[str, Scalar]
    note: dict[str, Any]


class Trial:
    """One set of values under trial."""

    def __init__(self, trial: optuna.Trial, changes: dict[str, Scalar]) -> None:
        self._trial = trial
        self.number: int = trial.number
        self.changes = changes

    def is_hopeless(self, value: float, *, epoch: int) -> bool:
        """Record an epoch's value; say whether it lies behind the median of the trials before it at the same epoch."""
        self._trial.report(value, epoch)
        return self._trial.should_prune()

    def keep(self, note: Mapping[str, Any]) -> None:
        """Store what is to be found again with the trial."""
        self._trial.set_user_attr("note", dict(note))


class Study:
    """One search over one space. Its first trial takes the declared values, so that the best is never worse than what was declared."""

    def __init__(self, url: str, name: str, *, space: Space, declared: Mapping[str, Scalar], higher_is_better: bool) -> None:
        import optuna
        from sqlalchemy import make_url

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        file = make_url(url).database if url.startswith("sqlite") else None
        self._lock = Path(f"{file}.lock") if file else None
        self._study = optuna.create_study(
            storage=optuna.storages.RDBStorage(url),
            study_name=name,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS, n_warmup_steps=_FIRST_EPOCHS),
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
        # Runs that take a study up one after another must not each draw the same first numbers.
        begun = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = optuna.samplers.TPESampler(seed=_SEED + begun, multivariate=True)
        self._study.enqueue_trial({name: declared[name] for name in space}, skip_if_exists=True)

    def ask(self, *, run_id: str) -> Trial:
        """Take the next set of values, in the name of a run."""
        with self._alone():
            trial = self._study.ask()
        trial.set_user_attr("run_id", run_id)
        return Trial(trial, {name: _suggest(trial, name, choice) for name, choice in self._space.items()})

    def finish(self, trial: Trial, value: float, *, note: Mapping[str, Any]) -> None:
        """Close a trial that was trained to its end; `note` (JSON) says where its network is."""
        trial.keep(note)
        self._study.tell(trial.number, value)

    def prune(self, trial: Trial) -> None:
        """Close a trial that was given up as hopeless; its epochs still teach the next ones."""
        import optuna

        self._study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, *, again: bool) -> None:
        """Close a trial that came to nothing; `again` puts its values first in the queue."""
        import optuna

        values = self._study.trials[number].params
        self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        if again and values:
            self._study.enqueue_trial(values)

    def open_trials(self) -> dict[int, str]:
        """Return trials that were asked for and not closed: number to the run that asked."""
        import optuna

        running = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return {trial.number: trial.user_attrs.get("run_id", "") for trial in running}

    def ended(self) -> list[Ended]:
        """Return the trials that were trained to their end, best first."""
        import optuna

        done = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        sign = -1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        ended = [Ended(t.number, float(t.value or 0.0), dict(t.params), dict(t.user_attrs.get("note", {}))) for t in done]
        return sorted(ended, key=lambda trial: (sign * trial.value, trial.number))

    def counts(self) -> dict[str, int]:
        """Return how many trials are in each state, by Optuna's lower-case names."""
        counts: dict[str, int] = {}
        for trial in self._study.get_trials(deepcopy=False):
            counts[trial.state.name.lower()] = counts.get(trial.state.name.lower(), 0) + 1
        return counts

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """SQLite has no row locks: two runs that ask at once were given the same queued trial."""
        if self._lock is None:
            yield
            return
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _suggest(trial: optuna.Trial, name: str, choice: Range | Sequence[Scalar]) -> Scalar:
    if not isinstance(choice, Range):
        chosen: Scalar = trial.suggest_categorical(name, list(choice))  # type: ignore[assignment]  # None is not among the choices
        return chosen
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return trial.suggest_int(name, choice.low, choice.high, log=choice.log)
    return trial.suggest_float(name, choice.low, choice.high, log=choice.log)
