"""A training watched while it runs, in real Dagster runs: what stands in the run's log, in the registry, in the gauges, at the notifier."""

import gzip
import json
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import dagster as dg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from platform_assets import keys
from platform_assets.components import live
from platform_assets.components.live import TrainingWatch, Watched, telemetry_metadata, watching
from platform_assets.components.step import Step, key_of
from platform_assets.errors import StateError, TrainingError
from platform_assets.specs.compute import ComputeProfile
from resources.testing.live_metrics import MemoryMetrics
from resources.testing.registry import MemoryRegistry
from resources.testing.state import RecordingNotifier
from tests.unit.networks.test_companions import device
from tests.unit.networks.test_companions import run as sample_in_a_process
from tests.unit.stages.telemetry.tiny import gpu, sample

KEY = keys.model_key("m", "trained")
PROFILE = ComputeProfile(cpu=4, memory="8Gi", price_aed_per_hour=4.0, idle_alert=timedelta(seconds=30))
WATCHED = Watched(KEY, model="m", tenant="acme")


class Training:
    """A training folder that grows, watched from inside a real step."""

    def __init__(self, out):
        self.out = out
        self.instance = dg.DagsterInstance.ephemeral()
        self.registry, self.metrics, self.notifier = MemoryRegistry(), MemoryMetrics(), RecordingNotifier()
        self.parts = SimpleNamespace(registry=self.registry, live_metrics=self.metrics, notifier=self.notifier)
        self.placed, self.metered = [SimpleNamespace(name="here", profile=PROFILE)], []

    def write(self, *samples):
        for one in samples:
            name = "telemetry.jsonl" if one.rank == 0 else f"telemetry-{one.rank:05d}.jsonl"
            with (self.out / name).open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")

    def run(self, body, *, whole=False):
        """Materialise an asset whose step does `body(watch)`, in a whole watching or as if killed; return what it returned."""
        returned = []

        @dg.asset(key=key_of(KEY))
        def trained(context):
            step = Step(context, self.parts, SimpleNamespace(saw=self.metered.append), self.placed)
            with watching(step, WATCHED, out=self.out) if whole else nullcontext(TrainingWatch(step, WATCHED, out=self.out)) as watch:
                returned.append(body(watch))

        done = dg.materialize([trained], instance=self.instance, raise_on_error=False)
        assert done.success == bool(returned)
        return returned[0] if returned else None

    def observations(self):
        records = self.instance.fetch_observations(key_of(KEY), limit=1000).records
        found = [record.event_log_entry.asset_observation.metadata for record in reversed(records)]
        return [{name: value.value for name, value in one.items()} for one in found]


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


def test_a_person_sees_figures_in_the_run_while_it_is_still_going_on(training):
    def body(watch):
        training.write(sample(100.0, gpus=(gpu(busy=0.5),), cpu_percent=150.0))
        watch.poll()
        return training.observations()

    (seen,) = training.run(body)
    assert seen == {
        "step": 1000, "loss": 0.5, "samples_per_second": 1000.0, "data_wait": 0.02, "cores": 1.5, "memory_gib": 0.4883,
        "gpu_utilisation": 0.5, "gpu_memory_gib": 30.0, "gpu_power_watts": 400.0, "gpu_temperature_c": 60.0,
    }  # fmt: skip


def test_an_observation_speaks_of_the_time_since_the_last_one_over_all_ranks(training):
    def body(watch):
        for at in range(100, 112, 2):
            training.write(sample(at, samples_per_second=10.0 * at, loss=1.0), sample(at + 0.5, rank=1, samples_per_second=500.0, loss=0.5))
            watch.poll()

    training.run(body)
    first, second = training.observations()
    assert first["samples_per_second"] == 1500.0
    assert second["samples_per_second"] == pytest.approx(sum(10.0 * at for at in range(102, 112, 2)) / 5 + 500)
    assert (second["loss"], second["cores"]) == (0.75, 2.0)


def test_observations_thin_out_so_that_a_days_training_leaves_no_flood():
    times = [0.0]
    for at in range(1, 30 * 86_400, 2):
        if live.is_due(1000.0 + at, shown=1000.0 + times[-1], began=1000.0):
            times.append(float(at))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 10
    assert max(gap / at for gap, at in zip(gaps[30:], times[30:], strict=False)) < 0.06
    assert (len([at for at in times if at <= 200]), len([at for at in times if at <= 86_400]), len(times)) == (20, 143, 213)


def test_prometheus_finds_the_newest_figures_while_it_runs_and_nothing_afterwards(training):
    def body(watch):
        training.write(sample(100.0, loss=0.5))
        watch.poll()
        training.write(sample(102.0, loss=0.4), sample(102.0, rank=1, loss=0.6))
        watch.poll()
        watch.end()

    training.run(body)
    assert training.metrics.shown == {}
    assert len(training.metrics.ever) == 2
    loss = next(one for one in text_string_to_metric_families(training.metrics.ever[-1]) if one.name == "falaj_training_loss").samples[0]
    assert loss.value == 0.5
    assert {name: loss.labels[name] for name in ("model", "tenant", "profile")} == {"model": "m", "tenant": "acme", "profile": "here"}


def test_a_long_training_is_open_in_the_registry_while_it_runs(training):
    def body(watch):
        for at in range(0, 100, 4):
            training.write(sample(1000.0 + at))
            watch.poll()
        during = dict(training.registry.runs)
        watch.end()
        return during

    (during,) = training.run(body).values()
    assert during["status"] == "RUNNING"
    points = during["live"]
    assert [point.at for point in points] == sorted({point.at for point in points})
    assert points[0].at == 1000.0  # what came before it was opened is not lost
    assert points[-1].figures["live/loss"] == 0.5
    assert points[-1].figures["system/cores"] == 1.0


def test_a_short_training_does_not_open_the_registry_beside_its_work(training):
    def body(watch):
        training.write(sample(1000.0), sample(1012.0))
        watch.poll()
        during = len(training.registry.runs)
        watch.end()
        return during, watch.mlflow_run

    during, run = training.run(body)
    assert during == 0
    assert [point.at for point in training.registry.runs[run]["live"]] == [1012.0]
    assert json.loads((training.out / live.STATE).read_text())["mlflow_run"] == run


def test_a_registry_that_does_not_answer_costs_its_figures_and_not_the_training(training):
    def refuse(*_):
        raise StateError("no answer")

    training.registry.start_training = refuse

    def body(watch):
        training.write(sample(1000.0), sample(1100.0))
        return watch.end()

    assert training.run(body).peak_memory_bytes == 500 * 2**20
    assert len(training.observations()) == 1


def test_the_next_run_on_the_same_folder_goes_on_where_the_killed_one_stopped(training):
    def until_killed(watch):
        for at in range(0, 80, 2):
            training.write(sample(1000.0 + at, gpus=(gpu(busy=0.0),)))
            watch.poll()
        return watch.mlflow_run

    def afterwards(watch):
        watch.poll()
        training.write(sample(1090.0, gpus=(gpu(busy=0.0),)))
        watch.poll()
        watch.end()
        return watch.mlflow_run

    first, second = training.run(until_killed), training.run(afterwards)
    assert first == second
    assert len(training.registry.runs) == 1
    points = [point.at for point in training.registry.runs[first]["live"]]
    assert points == sorted(set(points))
    assert len(training.notifier.messages) == 1


def test_a_held_gpu_that_idles_longer_than_declared_is_told_once_a_spell(training):
    busy = [0.9] * 5 + [0.0] * 40 + [0.9] * 5 + [0.0] * 20

    def body(watch):
        for at, one in enumerate(busy):
            training.write(sample(1000.0 + 2 * at, gpus=(gpu(0, busy=0.9), gpu(1, busy=one))))
            watch.poll()

    training.run(body)
    assert [(message.title, message.severity) for message in training.notifier.messages] == [("m: a held GPU idles", "warning")] * 2
    assert training.notifier.messages[0].text == (
        "GPU 1 of node 0 has been held by the training of m on here for 32 s without work (declared: 30 s)."
    )


def test_an_alert_comes_from_what_nvml_says_of_the_gpus_a_process_holds(training):
    training.placed = [SimpleNamespace(name="here", profile=PROFILE.model_copy(update={"idle_alert": timedelta(seconds=0.3)}))]
    devices = [device(uuid="GPU-a", busy=0), device(uuid="GPU-b"), device(uuid="GPU-c", busy=0)]
    sample_in_a_process(training.out, devices=devices, every=0.05, work="time.sleep(0.8)", CUDA_VISIBLE_DEVICES="0,1")
    training.run(lambda watch: watch.end() and None)
    (message,) = training.notifier.messages
    assert message.text.startswith("GPU 0 of node 0 has been held by the training of m on here for 0 s without work")


def test_a_profile_without_a_limit_alerts_nobody(training):
    training.placed = [SimpleNamespace(name="here", profile=PROFILE.model_copy(update={"idle_alert": None}))]
    training.run(lambda watch: (training.write(*[sample(float(at), gpus=(gpu(busy=0.0),)) for at in range(0, 9000, 20)]), watch.end()))
    assert training.notifier.messages == []


def test_what_was_used_goes_to_the_meter_and_a_finished_trainings_run_stays_open_for_its_results(training):
    training.run(lambda _: training.write(sample(1000.0), sample(1002.0, rank=1)) or "done", whole=True)
    (used,) = training.metered
    assert (used.cpu_cores_mean, used.peak_memory_bytes, used.seconds) == (2.0, 1000 * 2**20, 2.0)
    assert [run["status"] for run in training.registry.runs.values()] == ["RUNNING"]


@pytest.mark.parametrize(("error", "status"), [(TrainingError("it diverged"), "FAILED"), (KeyboardInterrupt(), "RUNNING")])
def test_a_training_that_failed_closes_its_run_and_one_whose_wait_was_broken_off_does_not(training, error, status):
    def body(_):
        training.write(sample(1000.0))
        raise error

    training.run(body, whole=True)
    assert [run["status"] for run in training.registry.runs.values()] == [status]
    assert training.metrics.shown == {}
    assert len(training.metered) == 1


def test_gauges_name_the_profile_of_the_newest_start(training):
    def body(watch):
        training.write(sample(1000.0))
        watch.poll()
        training.placed.append(SimpleNamespace(name="larger", profile=PROFILE))
        training.write(sample(1002.0, private_bytes=100), sample(1004.0, private_bytes=200))
        watch.poll()

    training.run(body, whole=True)
    (used,) = training.metered
    assert (used.peak_memory_bytes, used.seconds) == (200, 2.0)  # of that start, which alone the larger profile is judged by
    assert ['profile="here"' in training.metrics.ever[0], 'profile="larger"' in training.metrics.ever[1]] == [True, True]


def test_a_trainer_that_said_nothing_shows_nothing(training):
    assert training.run(lambda watch: (watch.poll(), watch.end())) == (None, None)
    assert training.observations() == []
    assert training.registry.runs == {}


def test_a_run_that_never_came_to_start_its_trainer_shows_nothing_of_an_older_one(training):
    training.placed = []
    training.write(sample(1000.0))
    training.run(lambda watch: watch.end() and None)
    assert training.observations() == []
    assert training.metrics.ever == []


def test_a_materialisation_shows_the_picture_where_time_went_and_whether_the_profile_fits(training, tmp_path):
    training.write(*[sample(2.0 * n, cpu_percent=80.0) for n in range(100)])
    with gzip.open(tmp_path / "trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 1, "tid": 1, "ts": 0, "dur": 2500}]}, file)
    half = PROFILE.model_copy(update={"cpu": 2.0, "price_aed_per_hour": 1.5})
    shown = telemetry_metadata(tmp_path, profile="here", profiles={"here": PROFILE, "half": half})
    assert set(shown) == {"machine", "right_sizing", "data_wait", "operators"}
    assert shown["machine"].value.startswith("![picture](data:image/png;base64,")
    assert shown["right_sizing"].endswith("Take half instead: it fits with headroom and saves 2.50 AED an hour a node.")
    assert shown["operators"].value.splitlines()[2] == "| aten::addmm | CPU | 1 | 2.50 | 100% |"
    (tmp_path / "trace.json.gz").write_bytes(b"cut short")
    broken = telemetry_metadata(tmp_path, profile="here", profiles={"here": PROFILE})
    assert broken["operators"].startswith("trace.json.gz is no whole trace")
    assert telemetry_metadata(tmp_path / "nothing", profile="here", profiles={"here": PROFILE}) == {}
    late = telemetry_metadata(tmp_path, profile="here", profiles={"here": PROFILE}, since=190.0)
    assert "too short to judge" in late["right_sizing"]
    assert "right_sizing" not in telemetry_metadata(tmp_path, profile="no longer declared", profiles={"here": PROFILE})
