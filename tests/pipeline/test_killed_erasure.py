"""`falaj erase` in a team's set-up: killed by SIGKILL in the midst it goes on, and what PostgreSQL still holds is no proof."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
import redis
from persons import OTHER, PERSON, fill
from pipeline.tiny import DATASET, DEFS, MODEL, TinyHome, wait_for
from postgres_process import own_database

from platform_assets import keys
from platform_assets.main_job import site
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.stages.training.heartbeat import connect_postgresql
from resources.parts import build_parts
from resources.settings import read_settings

pytestmark = pytest.mark.slow


def run(dsn: str, sql: str) -> None:
    with closing(connect_postgresql(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(sql)


def everything(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and PERSON.encode() in file.read_bytes()}


def test_an_erasure_that_is_killed_goes_on_and_is_proven_by_searching_the_databases_too(
    postgres: str, redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = own_database(postgres)
    (tmp_path / "team.toml").write_text(f'[postgresql]\nurl = "{dsn}"\n[redis]\nurl = "{redis_server}"\n')
    tiny = TinyHome(tmp_path / "home")
    for name, value in {**tiny.environment, "FALAJ_ENV": "team", "FALAJ_TEAM": str(tmp_path / "team.toml")}.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    site.prepare(settings)
    parts = build_parts(settings, load_catalogue(DEFS))
    fill(parts)
    run(dsn, f"CREATE TABLE public.note (said text); INSERT INTO public.note VALUES ('asked for by {PERSON}')")

    before = keys.table_name(keys.model_key(MODEL, "production_log"))
    with closing(redis.Redis.from_url(redis_server)) as queue:
        queue.execute_command(
            "CLIENT", "PAUSE", "120000", "WRITE"
        )  # the step that erases online values stands still, all before it are done
        process = tiny.start("erase", "--subject", PERSON)
        try:
            wait_for(lambda: any(before in one.done for one in parts.erasures.under_way()), seconds=120, what="the step before")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        finally:
            queue.execute_command("CLIENT", "UNPAUSE")
    assert process.returncode == -signal.SIGKILL
    (journal,) = parts.erasures.under_way()
    assert "online values" not in journal.done
    assert [entry["action"] for entry in parts.audit.entries() if "erasure" in entry["action"]] == ["erasure_began"]

    answer = tiny.falaj("erase")
    assert answer.returncode == 1
    assert "is not proven, it is still in: PostgreSQL public.note.said; `falaj erase` goes on with it" in " ".join(answer.stdout.split())
    assert len(parts.erasures.under_way()) == 1

    run(dsn, "DELETE FROM public.note")
    answer = tiny.falaj("erase")
    assert answer.returncode == 0, answer.stdout
    assert parts.erasures.under_way() == []
    assert everything(tiny.home.root) == set()
    rows = parts.tables.read(parts.tables.pin(keys.table_name(keys.dataset_key(DATASET, "ingested"))))
    assert set(rows["guest_id"].to_pylist()) == {OTHER}
    assert [json.loads(one.body)["data"]["why"] for one in parts.inbox.claim("g")] == [OTHER]
    done = [entry for entry in parts.audit.entries() if entry["action"] == "erasure"]
    assert [PERSON in json.dumps(entry) for entry in done] == [False]
    assert "databases: nothing" in done[0]["detail"]["proof"]
