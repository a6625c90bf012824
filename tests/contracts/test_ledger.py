"""What every ledger promises: what was spent is accounted whatever happens, and promises are given one at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from postgres_process import own_database

from platform_assets.errors import StateError
from platform_assets.specs.spending import Asked, Month, Used
from resources.ledger import PostgresLedger, SqliteLedger
from resources.ledger import open_ledger as open_by_dsn
from resources.testing.state import MemoryLedger

CHECKOUT = Path(__file__).resolve().parents[2]
NOW = Month.of(time.time())
GPU = Asked("gpu-2", "dubai", price_aed_per_hour=36.0, nodes=2, cpu=8, memory_bytes=2**34, gpus=4)


def open_ledger(place: str, **more):
    return PostgresLedger(place, **more) if place.startswith("postgresql") else SqliteLedger(Path(place), **more)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    return str(tmp_path / "state.sqlite") if request.param == "sqlite" else own_database(request.getfixturevalue("postgres"))


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def ledger(request, tmp_path):
    if request.param == "memory":
        return MemoryLedger()
    return open_ledger(str(tmp_path / "state.sqlite") if request.param == "sqlite" else own_database(request.getfixturevalue("postgres")))


def spend(ledger, *, wall: float, model: str = "m", tenant: str = "t", run_id: str = "r", stage: str = "model/trained", asked: Asked = GPU):
    with ledger.measure(model=model, stage=stage, run_id=run_id, tenant=tenant, asked=asked) as meter:
        meter.add(wall_seconds=wall)


def test_it_sums_by_model_and_stage_and_counts_failed_steps_too(ledger):
    with ledger.measure(model="m", stage="trained", run_id="1"):
        sum(range(400_000))
    with pytest.raises(ValueError), ledger.measure(model="m", stage="trained", run_id="2"):
        raise ValueError
    with ledger.measure(model="n", stage="trained", run_id="3"):
        pass
    first, second = ledger.totals()
    assert (first["model"], first["stage"], first["runs"], second["model"]) == ("m", "trained", 2, "n")
    assert first["wall_seconds"] > 0
    assert first["cpu_seconds"] > 0
    assert ledger.totals(since=time.time() + 60) == []
    assert [entry.outcome for entry in ledger.entries(NOW)] == ["done", "failed", "done"]


def test_it_counts_the_cpu_of_children(ledger):
    with ledger.measure(model="m", stage="child", run_id="1"):
        subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert ledger.totals()[0]["cpu_seconds"] > 0.05


def test_an_entry_says_who_paid_for_what_and_what_it_used(ledger):
    with ledger.measure(model="m", stage="model/trained", run_id="r", tenant="t", asked=GPU) as meter:
        meter.add(wall_seconds=3600, cpu_seconds=90)
        meter.saw(Used(peak_rss_bytes=2**33, gpu_utilisation=0.4, peak_gpu_memory_bytes=2**36))
    (entry,) = ledger.entries(NOW)
    assert (entry.run_id, entry.tenant, entry.model, entry.stage, entry.asked) == ("r", "t", "m", "model/trained", GPU)
    assert entry.used == Used(2**33, 0.4, 2**36)
    assert entry.gpu_seconds == pytest.approx(4 * 3600, abs=20)
    assert entry.price_aed == pytest.approx(36.0 * 2, abs=0.1)
    assert 90 <= entry.cpu_seconds < 100
    (total,) = ledger.totals()
    assert (total["gpu_seconds"], total["price_aed"]) == (pytest.approx(entry.gpu_seconds), pytest.approx(entry.price_aed))


def test_nobody_looked_is_not_nil(ledger):
    spend(ledger, wall=1)
    assert ledger.entries(NOW)[0].used == Used()


def test_a_retry_on_other_resources_is_an_entry_of_its_own_at_its_own_price(ledger):
    with ledger.measure(model="m", stage="model/trained", run_id="r", tenant="t", asked=Asked("small", price_aed_per_hour=1)) as meter:
        meter.add(wall_seconds=3600)
        meter.use(Asked("large", price_aed_per_hour=10))
        meter.add(wall_seconds=1800)
    first, second = ledger.entries(NOW)
    assert (first.asked.profile, first.outcome, first.price_aed) == ("small", "failed", pytest.approx(1.0, abs=0.01))
    assert (second.asked.profile, second.outcome, second.price_aed) == ("large", "done", pytest.approx(5.0, abs=0.01))
    assert ledger.totals()[0]["runs"] == 1


def test_history_is_the_newest_whole_work_of_each_stage(ledger):
    for number in range(4):
        spend(ledger, wall=100 * (number + 1), run_id=str(number))
    spend(ledger, wall=7, run_id="c", stage="model/candidates")
    spend(ledger, wall=7, run_id="o", model="other")
    with ledger.measure(model="m", stage="model/trained", run_id="again", tenant="t") as meter:
        meter.reused()
    with pytest.raises(OSError), ledger.measure(model="m", stage="model/trained", run_id="broken", tenant="t"):
        raise OSError
    assert [(entry.stage, entry.run_id) for entry in ledger.history("m", last=2)] == [
        ("model/candidates", "c"), ("model/trained", "3"), ("model/trained", "2"),
    ]  # fmt: skip


def test_a_month_holds_what_began_in_it(ledger):
    spend(ledger, wall=3600)
    before = Month.of(NOW.begins.timestamp() - 1)
    assert ledger.spending(NOW).spent == {("t", "m"): pytest.approx(72, abs=0.1)}
    assert ledger.spending(before).spent == {}
    assert ledger.entries(before) == ledger.entries(NOW.next) == []


def test_a_promise_shrinks_by_what_its_run_has_spent_and_goes_with_it(ledger):
    ledger.promise("r", month=NOW, judge=lambda _: {("t", "m"): 100.0})
    assert ledger.spending(NOW).promised == {("t", "m"): 100.0}
    assert set(ledger.promised_runs()) == {"r"}
    spend(ledger, wall=3600)
    assert ledger.spending(NOW).promised == {("t", "m"): pytest.approx(28, abs=0.1)}
    spend(ledger, wall=3600)
    assert ledger.spending(NOW).promised == {("t", "m"): 0.0}, "who spends more than promised is owed nothing"
    ledger.settle("r")
    assert ledger.spending(NOW).promised == ledger.promised_runs() == {}


def test_a_judge_sees_the_promises_of_others_and_may_take_back_its_own(ledger):
    seen = []
    for run in ("a", "b", "a"):
        ledger.promise(run, month=NOW, judge=lambda spending: seen.append(dict(spending.promised)) or {("t", "m"): 5.0})
    ledger.promise("a", month=NOW, judge=lambda _: None)
    assert seen == [{}, {("t", "m"): 5.0}, {("t", "m"): 5.0}]
    assert set(ledger.promised_runs()) == {"b"}


def test_asks_at_the_same_moment_never_promise_the_same_money_twice(place):
    def ask(run: str) -> None:
        ledger = open_ledger(place)

        def judge(spending):
            taken = sum(spending.promised.values())
            time.sleep(0.02)  # room for another to come between
            return {("t", "m"): 10.0} if taken + 10 <= 30 else None

        ledger.promise(run, month=NOW, judge=judge)

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(open_ledger(place).spending(NOW).promised.values()) == 30


_WORK = (
    "import sys, time; sys.path.insert(0, sys.argv[1])\n"
    "from contracts.test_ledger import GPU, open_ledger\n"
    "with open_ledger(sys.argv[2], beat_seconds=0.1).measure(model='m', stage='model/trained', run_id='r', tenant='t', asked=GPU):\n"
    "    print('go', flush=True)\n"
    "    while True: sum(range(10**5))\n"
)


def test_what_a_killed_run_has_spent_is_accounted_to_its_last_beat(place):
    process = subprocess.Popen([sys.executable, "-c", _WORK, str(CHECKOUT / "tests"), place], stdout=subprocess.PIPE, cwd=CHECKOUT)
    began = time.time()
    process.stdout.readline()
    deadline = began + 30
    while not (seen := open_ledger(place).entries(NOW)) and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (entry,) = open_ledger(place).entries(NOW)
    assert entry.outcome == "open"
    assert 0 < seen[0].wall_seconds <= entry.wall_seconds < time.time() - began
    assert 0 < seen[0].cpu_seconds <= entry.cpu_seconds
    assert open_ledger(place).spending(NOW).spent == {("t", "m"): pytest.approx(entry.price_aed)}
    assert open_ledger(place).history("m", last=5) == [], "half a work says nothing of what the next one costs"


def test_a_step_has_its_entry_half_a_second_after_it_began_and_before_where_somebody_asks_for_it(ledger):
    with ledger.measure(model="m", stage="model/trained", run_id="soon", tenant="t") as meter:
        meter.beat()
        (asked_for,) = ledger.entries(NOW)
        began, deadline = asked_for.began, time.time() + 30
        while ledger.entries(NOW)[0].wall_seconds < 0.5 and time.time() < deadline:
            time.sleep(0.05)
        (by_itself,) = ledger.entries(NOW)
    (over,) = ledger.entries(NOW)
    assert {one.outcome for one in (asked_for, by_itself)} == {"open"}
    assert (over.outcome, over.began) == ("done", began)
    assert asked_for.wall_seconds < 0.5 <= by_itself.wall_seconds <= over.wall_seconds


def test_a_database_out_of_reach_is_one_sentence(tmp_path):
    (tmp_path / "state.sqlite").write_text("this is no database, and it is long enough to be seen as none")
    with pytest.raises(StateError, match=r"The ledger in .*state\.sqlite could not be used"):
        SqliteLedger(tmp_path / "state.sqlite").entries(NOW)
    with pytest.raises(StateError, match=r"127\.0\.0\.1:9/x could not be used"):
        PostgresLedger("postgresql://me:secret@127.0.0.1:9/x").entries(NOW)


def test_a_run_that_takes_over_pays_from_where_the_dead_ones_entry_ends(ledger):
    """A trainer that outlived its run is paid for once: by the first run to its last beat, by the second from there on."""
    spend(ledger, wall=3600, run_id="dead")
    (dead,) = ledger.entries(NOW)
    ended = dead.began + dead.wall_seconds + 1800
    with ledger.measure(model="m", stage="model/trained", run_id="next", tenant="t", asked=GPU) as meter:
        meter.take_over("dead", until=ended, cpu_seconds=dead.cpu_seconds + 7)
        meter.take_over("dead", until=dead.began)
        meter.take_over("never-seen", until=ended)
    _, entry = ledger.entries(NOW)
    assert entry.wall_seconds == pytest.approx(1800, abs=5)
    assert 7 <= entry.cpu_seconds < 17


def test_a_ledger_is_named_by_its_dsn(tmp_path):
    assert isinstance(open_by_dsn("postgresql://me@host/db"), PostgresLedger)
    assert isinstance(open_by_dsn(f"sqlite:///{tmp_path}/l.sqlite"), SqliteLedger)
    with pytest.raises(StateError, match="FALAJ_LEDGER='mysql://x' names no ledger"):
        open_by_dsn("mysql://x")


def test_waiting_for_a_gpu_costs_nothing(ledger):
    with ledger.measure(model="m", stage="model/trained", run_id="r", tenant="t", asked=GPU) as meter:
        with meter.waiting():
            time.sleep(0.4)
            meter.beat()
            meanwhile = ledger.entries(NOW)[0].wall_seconds
        meter.add(wall_seconds=10)
    assert meanwhile < 0.3
    assert 10 <= ledger.entries(NOW)[0].wall_seconds < 10.3
