"""Studies on Optuna's real database: shared between processes, resumable, pruning by the median."""

import multiprocessing

import pytest
from postgres_process import own_database

from resources.studies import Range, Study

SPACE = {"learning_rate": Range(1e-4, 1e-1, log=True), "width": Range(8, 64), "dropout": (0.0, 0.1, 0.2)}
DECLARED = {"learning_rate": 0.01, "width": 32, "dropout": 0.1, "depth": 2}


def open_study(url: str, name: str = "hotels") -> Study:
    return Study(url, name, space=SPACE, declared=DECLARED, higher_is_better=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    return f"sqlite:///{tmp_path}/studies.sqlite" if request.param == "sqlite" else own_database(request.getfixturevalue("postgres"))


def test_the_first_trial_takes_the_declared_values(url):
    assert open_study(url).ask(run_id="a").changes == {"learning_rate": 0.01, "width": 32, "dropout": 0.1}


def test_values_stay_within_the_space_and_keep_their_types(url):
    study = open_study(url)
    for _ in range(12):
        changes = study.ask(run_id="a").changes
        assert 1e-4 <= changes["learning_rate"] <= 1e-1
        assert isinstance(changes["width"], int)
        assert 8 <= changes["width"] <= 64
        assert changes["dropout"] in (0.0, 0.1, 0.2)


def test_a_study_goes_on_where_another_process_left_it(url):
    first = open_study(url)
    trial = first.ask(run_id="a")
    first.finish(trial, 0.7, note={"digest": "abc"})
    again = open_study(url)
    assert [(ended.number, ended.value, ended.note) for ended in again.ended()] == [(0, 0.7, {"digest": "abc"})]
    assert again.ask(run_id="b").number == 1


def test_the_best_trial_leads_and_pruned_ones_do_not_count(url):
    study = open_study(url)
    for value in (0.6, 0.9, 0.7):
        study.finish(study.ask(run_id="a"), value, note={})
    study.prune(study.ask(run_id="a"))
    assert [ended.value for ended in study.ended()] == [0.9, 0.7, 0.6]
    assert study.counts() == {"complete": 3, "pruned": 1}


def test_a_trial_behind_the_median_is_hopeless_and_a_leading_one_is_not(url):
    study = open_study(url)
    for value in (0.6, 0.7, 0.8, 0.9):
        trial = study.ask(run_id="a")
        for epoch in (1, 2):
            trial.is_hopeless(value, epoch=epoch)
        study.finish(trial, value, note={})
    poor, good = study.ask(run_id="a"), study.ask(run_id="a")
    assert poor.is_hopeless(0.5, epoch=2)
    assert not good.is_hopeless(0.95, epoch=2)


def test_a_trial_whose_run_died_is_tried_again(url):
    study = open_study(url)
    dead = study.ask(run_id="dead")
    assert study.open_trials() == {0: "dead"}
    study.fail(0, again=True)
    assert study.open_trials() == {}
    assert study.ask(run_id="next").changes == dead.changes


def _ask(url: str, answers) -> None:
    answers.put(open_study(url).ask(run_id="x").number)


@pytest.mark.slow
def test_runs_that_ask_at_once_get_trials_of_their_own(url):
    open_study(url)
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    runs = [spawn.Process(target=_ask, args=(url, answers)) for _ in range(3)]
    for run in runs:
        run.start()
    numbers = [answers.get(timeout=120) for _ in runs]
    for run in runs:
        run.join()
    assert sorted(numbers) == [0, 1, 2]
