"""A training outlives the run that began it, and every end of its trainer leads where the declaration says. Real processes throughout."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from dagster import DagsterExecutionInterruptedError
from supervised import World

from platform_assets.components.training_run import describe_attempts
from platform_assets.errors import GivenUpError, LeaseError, TrainingError
from platform_assets.specs.leases import GPU_POOL, LeaseAsk
from resources import detached, leases
from tests.unit.networks.tiny import TABULAR, tabular, write_set

SHORT_SECONDS = 2.5  # a lease's time to live in runs that are killed


def wait_for(condition, *, seconds: float = 30.0, what: str = "it") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


@pytest.fixture
def world(tmp_path, request):
    """A world whose trainer does what the test's parameter or default says; nothing of it is left running."""
    made = World(tmp_path, getattr(request, "param", [{}]))
    yield made
    for process in psutil.process_iter():
        try:
            if process.environ().get(detached.MARK, "").startswith(str(tmp_path)):
                process.kill()
        except (psutil.Error, OSError):
            continue


def start_run(world: World, profile: str = "gpu", **training: int) -> multiprocessing.Process:
    """A Dagster process of its own; forked, since everything is imported here already."""

    def work() -> None:
        leases.LEASE_SECONDS = SHORT_SECONDS
        for method in (leases.SqliteLeaseTable.take, leases.SqliteLeaseTable.renew):
            method.__kwdefaults__["seconds"] = SHORT_SECONDS
        trained = world.run(profile=profile, **training)
        (world.root / "outcomes.json").write_text(json.dumps([attempt["outcome"] for attempt in trained.attempts]))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def kill(process: multiprocessing.Process) -> None:
    process.kill()
    process.join()


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def heard_bytes(world: World) -> int:
    """How far the first start's messages have been read: 600 bytes are some steps."""
    offset = world.folder.root / "attempts" / "0001" / "messages.read"
    return int(offset.read_text()) if offset.exists() else 0


def outcomes(trained) -> list[tuple[str, str, int]]:
    return [(attempt["outcome"], attempt["profile"], attempt["micro_batches"]) for attempt in trained.attempts]


def test_a_training_runs_on_leased_slots_and_gives_them_back(world):
    seen: list[Path] = []
    said: list[str] = []
    trained = world.run(looks=[seen.append], said=said)
    assert outcomes(trained) == [("finished", "gpu", 1)]
    start = world.starts()[0]
    assert start["spec"]["kind"] == "binary"
    assert start["spec"]["threads"] == 1
    assert start["run"]["checkpoint_seconds"] == 300.0
    assert start["lease"]["seconds"] == leases.LEASE_SECONDS
    assert world.parts().leases.held(GPU_POOL) == []
    assert seen[-1] == world.out
    assert [text for text in said if text.startswith("step ")] == [f"step {step}" for step in range(1, 31)]
    assert describe_attempts(trained.attempts)["lost_steps"] == 0
    mode = (world.folder.root / "attempts" / "0001" / "lease.json").stat().st_mode
    assert mode & 0o077 == 0, "a table's address may hold a password"


@pytest.mark.parametrize("world", [[{"steps": 180, "pause": 0.03}]], indirect=True)
def test_killing_dagster_neither_kills_nor_fails_a_training_and_the_next_run_attaches(world):
    first = start_run(world)
    try:
        wait_for(lambda: heard_bytes(world) > 600, seconds=60, what="the training")
        kill(first)
        trainer = world.starts()[0]["pid"]
        reached = world.reached()
        time.sleep(SHORT_SECONDS + 0.5)
        assert len(world.parts().leases.held(GPU_POOL)) == 1, "its own heartbeat keeps its GPUs"
        wait_for(lambda: world.reached() > reached + 20, what="progress without Dagster")
        said: list[str] = []
        trained = world.run(said=said)
    finally:
        kill(first)
    assert outcomes(trained) == [("finished", "gpu", 1)]
    assert [start["pid"] for start in world.starts()] == [trainer], "the same trainer, started once"
    assert any("Attached to start 1" in text and "still runs" in text for text in said)
    heard = [int(text.split()[1]) for text in said if text.startswith("step ")]
    assert heard == list(range(heard[0], 181)), "messages go on where the killed run had stopped reading"
    assert 1 < heard[0] <= reached + 2
    assert world.parts().leases.held(GPU_POOL) == []


@pytest.mark.parametrize("world", [[{"steps": 40, "pause": 0.02}]], indirect=True)
def test_what_a_trainer_finished_while_nobody_looked_is_picked_up(world):
    first = start_run(world)
    wait_for(lambda: world.reached() > 2, seconds=60, what="the training")
    kill(first)
    wait_for((world.out / "exit.json").exists, what="its end")
    said: list[str] = []
    trained = world.run(said=said)
    assert outcomes(trained) == [("finished", "gpu", 1)]
    assert len(world.starts()) == 1
    assert any("which has ended" in text for text in said)


@pytest.mark.parametrize("world", [[{"steps": 400, "pause": 0.02}, {"steps": 60}]], indirect=True)
def test_a_trainer_that_died_with_dagster_is_started_again_from_its_checkpoints(world):
    first = start_run(world)
    wait_for(lambda: world.reached() > 20, seconds=60, what="the training")
    kill(first)
    os.kill(world.starts()[0]["pid"], signal.SIGKILL)
    wait_for(lambda: not alive(world.starts()[0]["pid"]), what="its death")
    wish = LeaseAsk("next", GPU_POOL, 2, 2, "t", "gpu-two")
    table = world.parts().leases
    wait_for(lambda: table.take(wish), seconds=SHORT_SECONDS + 1, what="its GPUs, without anyone's help")
    table.release("next", pool=GPU_POOL)
    trained = world.run()
    assert [attempt["outcome"] for attempt in trained.attempts] == ["killed", "finished"]
    assert trained.attempts[-1]["restored_from"] >= 20
    assert describe_attempts(trained.attempts)["lost_steps"] == trained.attempts[-1]["lost_steps"] <= 5


@pytest.mark.parametrize("world", [[{"steps": 200, "pause": 0.02}]], indirect=True)
def test_of_two_runs_of_one_training_the_second_takes_the_firsts_result(world):
    first = start_run(world)
    wait_for(lambda: world.reached() > 2, seconds=60, what="the training")
    said: list[str] = []
    trained = world.run(said=said)
    first.join(60)
    assert json.loads((world.root / "outcomes.json").read_text()) == ["finished"]
    assert any("follows this very training" in text for text in said)
    assert trained.attempts[-1]["outcome"] == "finished"
    assert not (world.out / "two trainers at once").exists()
    assert len({start["pid"] for start in world.starts()}) == 1


@pytest.mark.parametrize("world", [[{"steps": 2000, "pause": 0.02}, {"steps": 60}]], indirect=True)
def test_a_run_that_is_terminated_stops_its_trainer_which_saves(world):
    """SIGTERM to the run's own process is what the UI's button comes to; then the same training goes on in a new run."""

    def press_the_button() -> None:
        wait_for(lambda: world.reached() > 10, seconds=60)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=press_the_button, daemon=True).start()
    with pytest.raises(DagsterExecutionInterruptedError):
        world.run()
    pid = world.starts()[0]["pid"]
    assert not alive(pid)
    ended = world.folder.attempts()[-1].ended()
    assert (ended["outcome"], ended["code"]) == ("preempted", 75)
    assert world.parts().leases.held(GPU_POOL) == []
    trained = world.run()
    assert trained.attempts[-1]["restored_from"] == ended["step"]
    assert outcomes(trained) == [("finished", "gpu", 1)]


def test_preempted_it_goes_on_by_itself_and_out_of_memory_on_the_larger_profile_then_in_smaller_parts(tmp_path):
    stops = ["preempted", "out_of_memory", "out_of_memory"]
    world = World(tmp_path, [*({"stop_at": 7 * (n + 1), "outcome": outcome} for n, outcome in enumerate(stops)), {}])
    trained = world.run()
    assert outcomes(trained) == [
        ("preempted", "gpu", 1), ("out_of_memory", "gpu", 1), ("out_of_memory", "gpu-two", 1), ("finished", "gpu-two", 2),
    ]  # fmt: skip
    assert [start["run"]["micro_batches"] for start in world.starts()] == [1, 1, 1, 2]
    assert describe_attempts(trained.attempts)["starts"] == 4
    assert "| 2 | gpu | 1 | out_of_memory |" in describe_attempts(trained.attempts)["attempts"].value


@pytest.mark.parametrize("gpus", [1, None])
def test_a_larger_profile_of_which_there_is_no_more_is_not_paid_for(tmp_path, gpus):
    """A pool of one GPU, or this machine with none: the next start would have what the last one had."""
    world = World(tmp_path, [{"stop_at": 3, "outcome": "out_of_memory"}, {"steps": 5}], gpus=gpus)
    assert outcomes(world.run()) == [("out_of_memory", "gpu", 1), ("finished", "gpu", 2)]


@pytest.mark.parametrize("outcome", ["diverged", "failed"])
def test_what_failed_by_itself_is_not_started_again(tmp_path, outcome):
    world = World(tmp_path, [{"stop_at": 3, "outcome": outcome}, {}])
    with pytest.raises(TrainingError, match=f"The training {outcome}: It was {outcome}"):
        world.run()
    assert len(world.starts()) == 1
    assert world.parts().leases.held(GPU_POOL) == []
    assert outcomes(world.run()) == [("finished", "gpu", 1)], "asked for again, it is tried again"


def test_a_crash_says_its_last_words(tmp_path):
    world, said = World(tmp_path, [{"raise_at": 3}]), []
    with pytest.raises(TrainingError, match="crashed"):
        world.run(said=said)
    assert any("a fault nobody foresaw" in text for text in said)


def test_starts_end_at_the_declared_number(tmp_path):
    world = World(tmp_path, [{"kill_at": 3}])
    with pytest.raises(TrainingError, match=r"start 2 of 2; raise training\.attempts"):
        world.run(attempts=2)
    assert len(world.starts()) == 2


def test_a_cut_stream_of_messages_fails_nothing(tmp_path):
    """Half a line, no JSON, an unknown method, the file cut to nothing: the training is judged by its own record alone."""
    world, said = World(tmp_path, [{"steps": 60, "pause": 0.03}]), []

    def spoil() -> None:
        messages = world.folder.root / "attempts" / "0001" / "messages.jsonl"
        wait_for(lambda: world.reached() > 10)
        with messages.open("a") as file:
            file.write('{"method": "no such method", "params": {}}\n{"method": "log"}\n[1, 2]\nnot json\n')
        wait_for(lambda: world.reached() > 25)
        os.truncate(messages, 0)
        wait_for(lambda: world.reached() > 40)
        messages.unlink()

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    trained = world.run(said=said)
    spoiler.join()
    assert outcomes(trained) == [("finished", "gpu", 1)]
    heard = [int(text.split()[1]) for text in said if text.startswith("step ")]
    assert heard[0] == 1
    assert max(heard) == 60


def test_a_look_that_fails_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)

    def look(out: Path) -> None:
        raise OSError(out)

    assert outcomes(World(tmp_path, [{}]).run(looks=[look])) == [("finished", "gpu", 1)]


def test_a_hopeless_training_is_stopped_and_gives_its_gpus_back(tmp_path):
    world = World(tmp_path, [{"steps": 2000, "pause": 0.03}])
    with pytest.raises(GivenUpError, match="behind the others"):
        world.run(give_up=lambda: "behind the others" if world.out.joinpath("starts.jsonl").exists() else None)
    assert not alive(world.starts()[0]["pid"])
    assert world.parts().leases.held(GPU_POOL) == []


def test_a_training_waits_in_turn_for_its_gpus_and_says_so(tmp_path):
    world, said = World(tmp_path, [{"steps": 3}]), []
    table = world.parts().leases
    held = table.take(LeaseAsk("other", GPU_POOL, 2, 2, "t", "gpu-two", holder="model/other"), seconds=60)
    threading.Timer(1.5, lambda: table.release(held.token, pool=GPU_POOL)).start()
    trained = world.run(said=said)
    assert describe_attempts(trained.attempts)["waited_for_gpus_seconds"] >= 1
    assert any("Waiting for 1 of 2 GPUs; held: 2 by model/other; in turn: model/tiny_cancellations" in text for text in said)
    assert table.waiting(GPU_POOL) == []


def test_a_run_that_is_terminated_while_it_waits_leaves_the_queue(tmp_path):
    world = World(tmp_path, [{}])
    table = world.parts().leases
    table.take(LeaseAsk("other", GPU_POOL, 2, 2, "t", "gpu-two"), seconds=60)

    def press_the_button() -> None:
        wait_for(lambda: table.waiting(GPU_POOL))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=press_the_button, daemon=True).start()
    with pytest.raises(DagsterExecutionInterruptedError):
        world.run()
    assert table.waiting(GPU_POOL) == []
    assert world.folder.attempts() == []


def test_more_gpus_than_the_pool_has_are_refused_in_a_sentence(tmp_path):
    world = World(tmp_path, [{}], gpus=1)
    with pytest.raises(LeaseError, match="gpus"):
        world.run(profile="gpu-two")
    assert not world.out.exists()


@pytest.mark.parametrize(("gpus", "profile"), [(0, "gpu"), (2, "cpu")])
def test_on_the_cpu_no_lease_is_asked_for(tmp_path, gpus, profile):
    world = World(tmp_path, [{"steps": 3}], gpus=gpus)
    assert world.run(profile=profile).attempts[0]["token"] is None
    assert "lease" not in world.starts()[0]


def test_a_changed_declaration_is_followed_where_memory_ran_out(tmp_path):
    world = World(
        tmp_path, [{"stop_at": 3, "outcome": "out_of_memory"}, {"stop_at": 4, "outcome": "failed"}, {"stop_at": 5, "outcome": "failed"}, {}]
    )
    with pytest.raises(TrainingError):
        world.run(profile="gpu-two")
    with pytest.raises(TrainingError):
        world.run(profile="gpu-two")
    world.run(profile="gpu-two", micro_batches=8)
    assert [start["run"]["micro_batches"] for start in world.starts()] == [1, 2, 2, 8]


def test_the_key_stays_free_for_the_next_when_the_folder_is_removed(tmp_path):
    world = World(tmp_path, [{"steps": 3}])
    world.run()
    with world.folder.hold("somebody", waiting=lambda holder: None):
        world.folder.remove()
    assert list(world.home.trainings.iterdir()) == []
    world.run()


@pytest.mark.slow
@pytest.mark.parametrize("world", [None], indirect=True)
def test_the_real_trainer_survives_dagster_saves_when_its_run_is_terminated_and_goes_on(world):
    """One training of the real program: Dagster is killed, a new run attaches and is terminated, a third one brings it to its end."""
    write_set(world.data, tabular(), TABULAR)
    epochs = 1500

    def epoch() -> int:
        lines = (world.out / "progress.jsonl").read_text().splitlines() if (world.out / "progress.jsonl").exists() else []
        return sum('"train/epoch"' in line for line in lines)

    first = start_run(world, epochs=epochs)
    wait_for(lambda: epoch() > 3 or not first.is_alive(), seconds=120, what="the training")
    kill(first)
    known = epoch()
    wait_for(lambda: epoch() > known + 20, seconds=60, what="progress without Dagster")

    looks, said = [], []

    def press_the_button(out: Path) -> None:
        looks.append(out)
        if len(looks) == 1 and not (out / "exit.json").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(DagsterExecutionInterruptedError):
        world.run(epochs=epochs, looks=[press_the_button], said=said)
    assert any("Attached to start 1" in text and "still runs" in text for text in said)
    ended = world.folder.attempts()[-1].ended()
    assert (ended["outcome"], ended["code"]) == ("preempted", 75)
    trained = world.run(epochs=epochs)
    assert outcomes(trained) == [("finished", "gpu", 1)]
    assert trained.attempts[0]["number"] == 2
    assert trained.attempts[0]["restored_from"] == ended["step"], "no step is done twice"
    assert trained.attempts[0]["lost_steps"] == 0
    assert len(json.loads((world.out / "curve.json").read_text())) == epochs
