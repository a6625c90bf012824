"""The heartbeat of a lease, in real processes: killed ones let go by themselves, stopped ones cannot come back, nothing else is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from platform_assets.errors import TrainingError
from platform_assets.specs.leases import LeaseAsk
from platform_assets.stages.training.heartbeat import Heartbeat, LeaseFile, read_lease, start_heartbeat
from resources.leases import SqliteLeaseTable

SECONDS = 1.2
TRAINER = """
import signal, sys, time
from pathlib import Path
from platform_assets.stages.training.heartbeat import start_heartbeat
def stop(*_):
    print("preempted: " + heartbeat.sentence, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
heartbeat = start_heartbeat(Path(sys.argv[1]))
loaded = {"torch", "psycopg2", "dagster", "pydantic", "numpy"} & set(sys.modules)
print(f"training {sorted(loaded)}", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def table(tmp_path: Path) -> SqliteLeaseTable:
    return SqliteLeaseTable(tmp_path / "leases.sqlite")


def ask(name: str, slots: int = 2) -> LeaseAsk:
    return LeaseAsk(name, "gpus", slots, 2, "t", "p")


@pytest.fixture
def trainer(tmp_path: Path, table: SqliteLeaseTable) -> Iterator[subprocess.Popen[str]]:
    """A process that holds both GPUs and keeps them."""
    lease = table.take(ask("trainer"), seconds=SECONDS)
    assert lease is not None
    file = tmp_path / "lease.json"
    file.write_text(json.dumps({"dsn": table.dsn, "token": lease.token, "seconds": SECONDS}))
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen([sys.executable, "-c", TRAINER, str(file)], stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "training []\n"
        yield process


def test_a_living_trainer_keeps_its_gpus_far_beyond_their_time_to_live(trainer: subprocess.Popen[str], table: SqliteLeaseTable) -> None:
    for _ in range(4):
        time.sleep(SECONDS / 2)
        assert table.take(ask("other")) is None
    assert trainer.poll() is None


def test_a_killed_trainers_gpus_are_free_again_without_anyones_help(trainer: subprocess.Popen[str], table: SqliteLeaseTable) -> None:
    trainer.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while table.take(ask("next")) is None:
        assert time.monotonic() < killed + SECONDS + 1
        time.sleep(0.02)
    assert time.monotonic() - killed > SECONDS / 2


def test_a_trainer_that_was_stopped_meanwhile_gives_up_when_it_wakes(trainer: subprocess.Popen[str], table: SqliteLeaseTable) -> None:
    """Its GPUs are another's by now: going on would put two trainings on them."""
    trainer.send_signal(signal.SIGSTOP)
    time.sleep(SECONDS + 0.3)
    new = table.take(ask("next"))
    assert new is not None
    trainer.send_signal(signal.SIGCONT)
    out, _ = trainer.communicate(timeout=10)
    assert trainer.returncode == 75
    assert "given to another" in out
    assert [lease.token for lease in table.held("gpus")] == [new.token]


def test_a_table_out_of_reach_is_borne_until_the_lease_must_have_run_out(tmp_path: Path) -> None:
    lost: list[float] = []
    began = time.monotonic()
    heartbeat = Heartbeat(LeaseFile(f"sqlite:///{tmp_path / 'gone.sqlite'}", "t", 1.0), on_lost=lambda: lost.append(time.monotonic()))
    heartbeat.start()
    while not lost:
        assert time.monotonic() < began + 5
        time.sleep(0.02)
    assert 0.5 < lost[0] - began < 1.5
    assert "out of reach" in heartbeat.sentence
    heartbeat.stop()
    assert len(lost) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"dsn": "x"}', '{"dsn": "x", "token": "t", "seconds": 1, "more": 2}'])
def test_a_file_that_is_no_lease_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.json").write_text(text)
    with pytest.raises(TrainingError, match="dsn, token and seconds"):
        read_lease(tmp_path / "lease.json")


def test_the_same_heartbeat_keeps_a_lease_in_postgresql(tmp_path: Path, postgres: str) -> None:
    from resources.leases import PostgresLeaseTable

    table = PostgresLeaseTable(postgres)
    assert table.take(LeaseAsk("beat", "gpus-beat", 1, 1, "t", "p"), seconds=SECONDS) is not None
    (tmp_path / "lease.json").write_text(json.dumps({"dsn": postgres, "token": "beat", "seconds": SECONDS}))
    heartbeat = start_heartbeat(tmp_path / "lease.json", on_lost=lambda: None)
    time.sleep(2 * SECONDS)
    assert [lease.token for lease in table.held("gpus-beat")] == ["beat"]
    table.release("beat", pool="gpus-beat")
    time.sleep(SECONDS / 2)
    assert heartbeat.lost
    heartbeat.stop()
