"""What every table of leases promises: never more than there is, all or nothing, in turn, and free again when a holder died."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from platform_assets.errors import LeaseError, StateError
from platform_assets.specs.leases import LeaseAsk
from platform_assets.stages.training.heartbeat import SQLITE, connect_postgresql
from resources.leases import PostgresLeaseTable, SqliteLeaseTable, open_leases

CHECKOUT = Path(__file__).resolve().parents[2]
BACKENDS = ["sqlite", "postgres"]


@pytest.fixture(params=BACKENDS)
def dsn(request, tmp_path):
    return f"{SQLITE}{tmp_path / 'leases.sqlite'}" if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def table(dsn):
    return open_leases(dsn)


@pytest.fixture
def pool():
    """A pool of its own for each test: the PostgreSQL server is shared."""
    return f"pool-{uuid4().hex[:8]}"


def ask(pool: str, slots: int, **more) -> LeaseAsk:
    return LeaseAsk(uuid4().hex, pool, slots, **{"capacity": 4, "tenant": "t", "profile": "p", "holder": f"{slots} slots", **more})


def run_sql(table, sql: str, *values: object) -> None:
    if isinstance(table, SqliteLeaseTable):
        with closing(sqlite3.connect(table.dsn.removeprefix(SQLITE), isolation_level=None)) as connection:
            connection.execute(sql, values)
    else:
        with closing(connect_postgresql(table.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values)


def let_it_run_out(table, token: str) -> None:
    """As if its time to live had passed without a heartbeat."""
    run_sql(table, "UPDATE leases SET ends = 0 WHERE token = ?", token)


def test_slots_are_given_all_or_none(table, pool):
    three = table.take(ask(pool, 3))
    assert three.slots == (0, 1, 2)
    assert table.take(ask(pool, 2)) is None
    assert [lease.slots for lease in table.held(pool)] == [(0, 1, 2)]
    assert table.waiting(pool) == ["2 slots"]


def test_asking_again_with_the_same_ticket_gives_the_same_lease(table, pool):
    wish = ask(pool, 2)
    assert table.take(wish) == table.take(wish)
    assert len(table.held(pool)) == 1


def test_slots_given_back_go_to_who_waits(table, pool):
    first, second = ask(pool, 4), ask(pool, 2)
    lease = table.take(first)
    assert table.take(second) is None
    assert table.release(lease.token, pool=pool)
    assert not table.release(lease.token, pool=pool)
    assert table.take(second).slots == (0, 1)


def test_a_big_wish_is_not_overtaken_by_small_ones_that_would_fit(table, pool):
    one = table.take(ask(pool, 1))
    big = ask(pool, 4)
    assert table.take(big) is None
    small = [ask(pool, 1) for _ in range(5)]
    assert [table.take(wish) for wish in small] == [None] * 5
    table.release(one.token, pool=pool)
    assert table.take(small[0]) is None
    assert table.take(big).slots == (0, 1, 2, 3)


def test_a_waiter_that_died_is_forgotten(table, pool):
    table.take(ask(pool, 1))
    dead = ask(pool, 4)
    assert table.take(dead, seconds=0.2) is None
    small = ask(pool, 1)
    assert table.take(small) is None
    time.sleep(0.3)
    assert table.take(small).slots == (1,)


def test_who_withdraws_makes_way(table, pool):
    table.take(ask(pool, 1))
    big, small = ask(pool, 4), ask(pool, 1)
    assert table.take(big) is None
    table.withdraw(big.ticket, pool=pool)
    assert table.take(small) is not None


def test_what_matters_more_comes_first_but_not_for_ever(table, pool):
    whole = table.take(ask(pool, 4))
    plain, urgent = ask(pool, 4, holder="plain"), ask(pool, 4, priority=3, holder="urgent")
    table.take(plain)
    table.take(urgent)
    assert table.waiting(pool) == ["urgent", "plain"]
    run_sql(table, "UPDATE lease_tickets SET place = place - 200 WHERE ticket = ?", plain.ticket)  # it has waited 200 s by now
    assert table.waiting(pool) == ["plain", "urgent"]
    table.release(whole.token, pool=pool)
    assert table.take(urgent) is None
    assert table.take(plain) is not None


def test_a_tenant_at_its_quota_waits_and_holds_up_nobody(table, pool):
    held = table.take(ask(pool, 2, tenant="a", quota=2))
    more = ask(pool, 1, tenant="a", quota=2)
    assert table.take(more) is None
    assert table.take(ask(pool, 1, tenant="b", quota=2)) is not None
    assert table.take(ask(pool, 1, tenant="a", quota=2, profile="other")) is not None
    table.release(held.token, pool=pool)
    assert table.take(more) is not None


def test_a_lease_that_is_renewed_lives_on_and_one_that_is_not_runs_out(table, pool):
    kept, left = table.take(ask(pool, 1), seconds=0.5), table.take(ask(pool, 1), seconds=0.5)
    for _ in range(4):
        time.sleep(0.2)
        assert table.renew(kept.token, seconds=0.5)
    assert [lease.token for lease in table.held(pool)] == [kept.token]
    assert not table.renew(left.token, seconds=0.5)


def test_a_stale_token_renews_nothing_once_the_slots_are_anothers(table, pool):
    stale = table.take(ask(pool, 4))
    let_it_run_out(table, stale.token)
    new = table.take(ask(pool, 4))
    assert not table.renew(stale.token)
    assert not table.release(stale.token, pool=pool)
    assert [lease.token for lease in table.held(pool)] == [new.token]


def test_a_lease_that_ran_out_unwanted_comes_to_life_again(table, pool):
    """A laptop that slept, a server's clock put forward: nobody took the GPUs, so the training goes on."""
    lease = table.take(ask(pool, 4))
    let_it_run_out(table, lease.token)
    assert table.renew(lease.token)
    assert table.take(ask(pool, 1)) is None


@pytest.mark.parametrize(
    ("more", "hint"), [({"slots": 5}, "gpus"), ({"slots": 3, "quota": 2}, "tenant_quota"), ({"slots": 0}, "at least one")]
)
def test_a_wish_that_can_never_come_true_is_refused_at_once(table, pool, more, hint):
    with pytest.raises(LeaseError, match=hint):
        table.take(ask(pool, **more))
    assert table.waiting(pool) == []


def test_pools_do_not_touch_each_other(table, pool):
    assert table.take(ask(pool, 4)) is not None
    assert table.take(ask(f"{pool}-other", 4)) is not None


COMPETITOR = """
import json, random, sys, time
from uuid import uuid4
from platform_assets.specs.leases import LeaseAsk
from resources.leases import open_leases
dsn, pool, seed, until = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
random.seed(seed)
table = open_leases(dsn)
while time.time() < until:
    ask = LeaseAsk(uuid4().hex, pool, random.randint(1, 4), 4, "t", "p")
    while (lease := table.take(ask, seconds=1.0)) is None and time.time() < until:
        time.sleep(0.01)
    if lease is None:
        table.withdraw(ask.ticket, pool=pool)
        break
    print(json.dumps(["+", time.time(), lease.token, lease.slots]), flush=True)
    time.sleep(random.random() * 0.05)
    print(json.dumps(["-", time.time(), lease.token, lease.slots]), flush=True)
    assert table.release(lease.token, pool=pool)
"""


def test_real_processes_that_compete_and_are_killed_never_hold_one_slot_at_once(dsn, pool):
    """Four processes take and give back for three seconds; one is killed half-way: its slots come back by themselves."""
    until = time.time() + 3.5
    start = [sys.executable, "-c", COMPETITOR, dsn, pool]
    rivals = [
        subprocess.Popen([*start, str(seed), str(until)], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    time.sleep(1.8)
    rivals[0].send_signal(signal.SIGKILL)
    said = [rival.communicate(timeout=30) for rival in rivals]
    assert [rival.returncode for rival in rivals] == [-signal.SIGKILL, 0, 0, 0], said
    events = sorted((json.loads(line) for out, _ in said for line in out.splitlines()), key=lambda event: event[1])
    last_word = {token: (word, at) for word, at, token, _ in events}
    held: dict[int, str] = {}
    given = 0
    for word, at, token, slots in events:
        for slot in slots:
            holder = held.get(slot)
            if word == "-":
                assert held.pop(slot) == token
                continue
            # Only the killed one never says that it gave a slot back; its second must have passed.
            if holder is not None:
                killed, since = last_word[holder]
                assert killed == "+"
                assert at > since + 1.0
            held[slot], given = token, given + 1
    assert given > 20
    time.sleep(max(0.0, until + 1.1 - time.time()))
    assert open_leases(dsn).take(ask(pool, 4)) is not None


class Leasing(RuleBasedStateMachine):
    """Any order of asking, giving back, dying and waking up, by several askers."""

    make_table: Callable[[], object]

    def __init__(self) -> None:
        super().__init__()
        self.table = type(self).make_table()
        self.pool = f"pool-{uuid4().hex}"
        self.wishes: dict[str, LeaseAsk] = {}
        self.leases: dict[str, tuple[int, ...]] = {}

    @rule(slots=st.integers(1, 4), tenant=st.sampled_from("ab"), quota=st.sampled_from([None, 4]), priority=st.integers(-2, 2))
    def ask(self, slots, tenant, quota, priority):
        wish = ask(self.pool, slots, tenant=tenant, quota=quota, priority=priority)
        self.wishes[wish.ticket] = wish
        self._took(self.table.take(wish))

    @rule(pick=st.randoms(use_true_random=False))
    def ask_again(self, pick):
        if self.wishes:
            self._took(self.table.take(self.wishes[pick.choice(sorted(self.wishes))]))

    @rule(pick=st.randoms(use_true_random=False))
    def give_back(self, pick):
        if self.leases:
            token = pick.choice(sorted(self.leases))
            assert self.table.release(token, pool=self.pool)
            del self.leases[token]

    @rule(pick=st.randoms(use_true_random=False), swept=st.booleans())
    def die(self, pick, swept):
        if self.leases:
            token = pick.choice(sorted(self.leases))
            let_it_run_out(self.table, token)
            if swept:
                self.table.held(self.pool)
                assert not self.table.renew(token)
            else:
                assert self.table.renew(token)
                return
            del self.leases[token]

    def _took(self, lease):
        if lease is not None:
            wish = self.wishes.pop(lease.token)
            assert len(lease.slots) == wish.slots
            assert set(lease.slots) <= set(range(wish.capacity))
            self.leases[lease.token] = lease.slots

    @invariant()
    def no_slot_is_held_twice_and_the_table_agrees(self):
        taken = [slot for slots in self.leases.values() for slot in slots]
        assert len(taken) == len(set(taken)) <= 4
        assert {lease.token: lease.slots for lease in self.table.held(self.pool)} == self.leases

    @invariant()
    def nobody_who_could_be_served_waits_for_ever(self):
        queue = [wish for wish in self.wishes.values() if wish.quota is None]
        if queue and not self.leases:
            served = [self.table.take(wish) for wish in list(self.wishes.values())]
            assert any(served)
            for lease in filter(None, served):
                self._took(lease)


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_any_order_of_events_capacity_is_never_exceeded(backend, request, tmp_path):
    if backend == "sqlite":
        Leasing.make_table = staticmethod(lambda: SqliteLeaseTable(tmp_path / "any.sqlite"))
    else:
        dsn = request.getfixturevalue("postgres")
        Leasing.make_table = staticmethod(lambda: PostgresLeaseTable(dsn))
    run_state_machine_as_test(
        Leasing, settings=settings(max_examples=12 if backend == "sqlite" else 6, stateful_step_count=20, deadline=None, database=None)
    )


def test_a_step_of_the_wall_clock_changes_nothing_on_one_machine(tmp_path, monkeypatch):
    table = SqliteLeaseTable(tmp_path / "leases.sqlite")
    lease = table.take(ask("gpus", 4))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert table.take(ask("gpus", 1)) is None
    assert [held.token for held in table.held("gpus")] == [lease.token]


def test_after_a_restart_of_the_machine_every_lease_is_gone(tmp_path, monkeypatch):
    before = SqliteLeaseTable(tmp_path / "leases.sqlite", clock=lambda: 9e6)
    before.take(ask("gpus", 4))
    monkeypatch.setattr("resources.leases.boot_id", lambda: "another start")
    assert SqliteLeaseTable(tmp_path / "leases.sqlite", clock=lambda: 12.0).take(ask("gpus", 4)) is not None


def test_time_to_live_is_under_thirty_seconds():
    from resources.leases import LEASE_SECONDS

    assert LEASE_SECONDS < 30


@pytest.mark.parametrize("wrong", ["leases.sqlite", "sqlite:///relative", "mysql://x"])
def test_a_dsn_that_names_no_table_is_refused_with_the_variable_to_change(wrong):
    with pytest.raises(StateError, match="FALAJ_LEASES"):
        open_leases(wrong)


def test_a_server_that_is_not_there_is_one_sentence_without_the_password():
    with pytest.raises(StateError, match="FALAJ_LEASES") as raised:
        open_leases("postgresql://falaj:secret@127.0.0.1:9/x").held("gpus")
    assert "secret" not in str(raised.value)


def test_a_shrunk_pool_gives_no_slot_beyond_its_end(table, pool):
    before, after = ask(pool, 3), replace(ask(pool, 2), capacity=2)
    table.take(before)
    assert table.take(after) is None
    table.release(before.ticket, pool=pool)
    assert table.take(after).slots == (0, 1)
