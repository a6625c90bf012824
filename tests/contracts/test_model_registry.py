"""What every model registry promises."""

import subprocess
import sys

import pytest
from postgres_process import own_database

from platform_assets.errors import StateError
from platform_assets.specs.telemetry import Point
from resources.mlflow_registry import MlflowRegistry
from resources.testing.registry import MemoryRegistry


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    return MlflowRegistry(tmp_path_factory.mktemp("ml flow"))


@pytest.fixture(scope="module")
def mlflow_on_postgres(tmp_path_factory, postgres):
    return MlflowRegistry(tmp_path_factory.mktemp("mlflow"), uri=own_database(postgres))


@pytest.fixture(params=["mlflow", "mlflow_on_postgres", "memory"])
def registry(request):
    return MemoryRegistry() if request.param == "memory" else request.getfixturevalue(request.param)


@pytest.fixture
def model(request):
    return "m_" + "".join(character for character in request.node.name if character.isalnum())


def train(registry, model):
    return registry.log_training(
        model, {"width": 32}, {"auroc": 0.9}, [{"epoch": 0, "loss": 0.7}, {"epoch": 1, "loss": 0.5}], {"spec": "abc"}
    )


def test_every_training_is_a_run_of_its_own(registry, model):
    assert train(registry, model) != train(registry, model)


def test_a_training_is_logged_into_the_run_that_was_opened_for_it(registry, model):
    run_id = registry.start_training(model, {"dagster_run": "r"})
    registry.log_live(run_id, [Point(10.0, 5, {"live/loss": 0.7}), Point(20.0, 9, {"live/loss": 0.6, "system/cores": 2.0})])
    assert registry.log_training(model, {"width": 32}, {"auroc": 0.9}, [], {"spec": "abc"}, run_id=run_id) == run_id
    given_up = registry.start_training(model, {})
    registry.drop_training(given_up)
    assert given_up != run_id


def test_figures_of_a_run_that_is_not_there_are_lost_and_stop_nobody(registry):
    registry.log_live("0" * 32, [Point(10.0, 5, {"live/loss": 0.7})])


def test_the_same_digest_is_the_same_version_and_another_is_the_next(registry, model, tmp_path):
    run_id = train(registry, model)
    first = registry.register(model, tmp_path / "a", run_id=run_id, tags={"digest": "aa"})
    assert registry.register(model, tmp_path / "elsewhere", run_id=run_id, tags={"digest": "aa"}) == first
    second = registry.register(model, tmp_path / "bb", run_id=run_id, tags={})
    assert (first, second) == ("1", "2")
    assert registry.register(model, tmp_path / "bb", run_id=run_id, tags={}) == second


def test_an_alias_points_moves_and_goes(registry, model, tmp_path):
    assert registry.alias(model, "champion") is None
    run_id = train(registry, model)
    for digest in ("aa", "bb"):
        registry.register(model, tmp_path / digest, run_id=run_id, tags={"digest": digest})
    registry.set_alias(model, "champion", "1")
    registry.set_alias(model, "challenger", "2")
    assert (registry.alias(model, "champion"), registry.alias(model, "challenger")) == ("1", "2")
    registry.set_alias(model, "champion", "2")
    registry.set_alias(model, "challenger", None)
    registry.set_alias(model, "challenger", None)
    assert (registry.alias(model, "champion"), registry.alias(model, "challenger")) == ("2", None)


def test_an_alias_of_an_unknown_version_is_refused_in_one_sentence(registry, model):
    with pytest.raises(StateError, match=r"version 7 of .* is not in the registry"):
        registry.set_alias(model, "champion", "7")


def test_mlflow_holds_parameters_metrics_tags_and_the_curve_by_step(mlflow, model):
    run_id = train(mlflow, model)
    client = mlflow._connect()
    run = client.get_run(run_id)
    assert (run.data.params, run.data.metrics["auroc"], run.data.tags["spec"]) == ({"width": "32"}, 0.9, "abc")
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "curve/loss")] == [(0, 0.7), (1, 0.5)]
    assert run.info.status == "FINISHED"


def test_mlflow_shows_a_running_training_by_step_and_time_and_how_it_ended(mlflow, model):
    client, run_id = mlflow._connect(), mlflow.start_training(model, {"dagster_run": "r"})
    mlflow.log_live(run_id, [Point(10.5, 5, {"live/loss": 0.7}), Point(20.0, 9, {"live/loss": 0.6})])
    running = client.get_run(run_id)
    assert (running.info.status, running.data.tags["dagster_run"], running.data.metrics) == ("RUNNING", "r", {"live/loss": 0.6})
    history = client.get_metric_history(run_id, "live/loss")
    assert [(point.step, point.timestamp, point.value) for point in history] == [(5, 10_500, 0.7), (9, 20_000, 0.6)]
    mlflow.log_training(model, {}, {"auroc": 0.9}, [], {}, run_id=run_id)
    assert (client.get_run(run_id).info.status, client.get_run(run_id).data.metrics["auroc"]) == ("FINISHED", 0.9)
    given_up = mlflow.start_training(model, {})
    mlflow.drop_training(given_up)
    assert client.get_run(given_up).info.status == "FAILED"


def test_a_long_curve_is_logged_whole(mlflow, model):
    run_id = mlflow.log_training(model, {}, {}, [{"epoch": n, "loss": 1.0 / (n + 1)} for n in range(1100)], {})
    assert len(mlflow._connect().get_metric_history(run_id, "curve/loss")) == 1100


@pytest.mark.slow
def test_two_processes_that_come_first_at_once_both_find_a_database(tmp_path):
    code = (
        "import sys, pathlib; from resources.mlflow_registry import MlflowRegistry\n"
        "r = MlflowRegistry(pathlib.Path(sys.argv[1])); run = r.log_training('m', {}, {}, [], {})\n"
        "print(r.register('m', pathlib.Path('/b'), run_id=run, tags={'digest': 'aa'}))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == ["1", "1"]
