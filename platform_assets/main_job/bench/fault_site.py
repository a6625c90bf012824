"""A team's site in a folder of its own, as people have one: real servers, `falaj up`, events that ask for runs; and what is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import yaml
from dagster._utils.error import SerializableErrorInfo  # it has no public name

from platform_assets.errors import FalajError
from platform_assets.main_job import site
from platform_assets.main_job.bench.fault_servers import Postgres, Redis, Store, free_port
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.events import Event
from resources import processes
from resources.dagster_instance.gate import AGAIN_TAG
from resources.events import GROUP
from resources.parts import Parts, build_parts
from resources.settings import CHECKOUT, Home, Settings, child_environment, read_settings, with_team

SOURCE, DATASET = "/bench", "small_bookings"
_DEFS = Path(__file__).parent / "fault_defs"
_MODEL = "small_cancellations"
_COMMAND_SECONDS = 180.0
T = TypeVar("T")


@dataclass
class Site:
    """Everything of one site. `models`: a copy of the small model for each, so that each meets work that is not done yet."""

    folder: Path
    models: Sequence[str]
    postgres: Postgres = field(default_factory=Postgres)
    more: dict[str, str] = field(default_factory=dict)  # of the environment
    instance: dg.DagsterInstance = field(init=False)  # while it runs

    def __post_init__(self) -> None:
        self.redis, self.store = Redis(self.folder / "redis"), Store(self.folder / "store")
        self.home, self.web_port = Home(self.folder / "disk" / "home"), free_port()
        self.team = self.folder / "team.toml"
        _write_models(self.folder / "defs", self.models)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the site is told."""
        ports = {"FALAJ_WEB_PORT": str(self.web_port), "FALAJ_SERVE_PORT": "0"}
        elsewhere = dict.fromkeys(("FALAJ_EVENTS", "FALAJ_LEDGER", "FALAJ_LEASES", "FALAJ_SENDERS", "FALAJ_WEBHOOK_URL"), "")
        return child_environment(self.settings, **ports, **elsewhere, **self.more)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have servers and site for as long as the block runs."""
        try:
            for server in (self.postgres, self.redis, self.store):
                server.start()
            self.team.write_text(
                f'[postgresql]\nurl = "{self.postgres.url}"\n[redis]\nurl = "{self.redis.url}"\n[store]\nurl = "{self.store.url}"\n'
                f'endpoint = "{self.store.endpoint}"\ncredentials = "{self.store.credentials}"\n'
            )
            self.falaj("up")
            with dg.DagsterInstance.from_config(str(self.home.instance)) as self.instance:
                yield
        finally:
            self.store.be("ok")
            if self.team.exists():
                self.falaj("down", may_fail=True)
            self.redis.stop()
            self.store.stop()
            self.postgres.remove()

    def falaj(self, *arguments: str, may_fail: bool = False) -> str:
        """Run a verb; return what it said. FalajError where it ended otherwise than well."""
        command = [sys.executable, "-m", "platform_assets.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
        if done.returncode != 0 and not may_fail:
            raise FalajError(f"bench: falaj {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    @cached_property
    def settings(self) -> Settings:
        """The site's settings, as its own processes read them."""
        here = replace(
            read_settings(), home=self.home, defs_root=self.folder / "defs", web_port=self.web_port, serve_port=0, webhook_url=None,
            events=None, ledger=None, leases=None, senders=None,
        )  # fmt: skip
        return with_team(here, self.team)

    def parts(self) -> Parts:
        """Return the parts, bound anew."""
        return build_parts(self.settings, load_catalogue(self.folder / "defs"))

    def pid(self, name: str) -> int:
        """Return the pid of one of the site's processes."""
        found = processes.running(self.home, name)
        if found is None:
            raise FalajError(f"bench: {name} does not run; its last words are in {self.home.logs / name}.log")
        return found.pid

    def ask(self, kind: str, name: str, **data: str) -> str:
        """Put an event into the inbox; return its key."""
        event = Event(id=name, source=SOURCE, type=kind, time=datetime.now(UTC), data=data)
        self.parts().inbox.publish(event)
        return event.key

    def runs(self, event: str) -> list[dg.DagsterRun]:
        """Return the runs that an event asked for, newest first: one, and those that went on with it."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"falaj/event": event})))

    def begun(self, event: str, state: str) -> bool:
        """Whether the run of an event has begun this step."""
        runs = self.runs(event)
        if not runs:
            return False
        logs = self.instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.STEP_START)
        return any((entry.step_key or "").endswith(f"__{state}") for entry in logs)

    def ended_at(self, run: dg.DagsterRun) -> float:
        """Return when a run ended, in seconds since the epoch."""
        (record,) = self.instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        return record.end_time or time.time()

    def last_words(self, run: dg.DagsterRun) -> str:
        """Return what a failed run said, in one line."""
        logs = self.instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE})
        found = [entry.dagster_event for entry in logs if entry.dagster_event is not None]
        failed = [event.step_failure_data.error for event in found if event.is_step_failure]
        if failed and failed[0] is not None:
            return _sentence(failed[0])
        return " ".join((found[-1].message or "").split()) if found else "nothing"

    def waits(self, run: dg.DagsterRun) -> list[str]:
        """Return why steps of a run were tried again."""
        logs = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
        errors = [entry.dagster_event.step_retry_data.error for entry in logs if entry.dagster_event is not None]
        return [_sentence(error) for error in errors if error is not None]

    def complaints(self, event: str, model: str | None) -> list[str]:
        """Return what is lost, done twice, left hanging or held, now that a fault is over and its run has ended. Nothing is right."""
        parts, found = self.parts(), []
        runs = self.runs(event)
        roots = [run for run in runs if run.parent_run_id is None and AGAIN_TAG not in run.tags]
        if len(roots) != 1:
            found.append(f"the event was acted on {len(roots)} times")
        left = [run.run_id[:8] for run in self.instance.get_runs() if not run.is_finished]
        if left:
            found.append(f"runs hang: {', '.join(left)}")
        if parts.inbox.waiting(GROUP) or parts.inbox.dead(GROUP):
            found.append(f"{parts.inbox.waiting(GROUP)} events wait, {len(parts.inbox.dead(GROUP))} are dead letters")
        parts.audit.verify()
        if model is not None:
            live = parts.serving.status(model)["live"]
            made = [entry["detail"]["digest"] for entry in parts.audit.entries(subject=f"model/{model}") if entry["action"] == "release"]
            if live is None or live not in made:
                found.append(f"no release of {model} is live")
            for digest in made:
                parts.releases.open(digest)
        return found


def patiently(look: Callable[[], T | None], *, seconds: float, what: str, every: float = 0.5) -> T:
    """Look until something is there; a server that is away meanwhile is no answer. FalajError where nothing comes."""
    import psycopg2
    import redis
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    away = (FalajError, OSError, SQLAlchemyError, DagsterPostgresException, psycopg2.Error, redis.RedisError)
    deadline, said = time.monotonic() + seconds, ""
    while True:
        try:
            found = look()
        except away as error:
            found, said = None, f"; last: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if found:
            return found
        if time.monotonic() > deadline:
            raise FalajError(f"bench: {what} did not come within {seconds:.0f} s{said}")
        time.sleep(every)


def _sentence(error: SerializableErrorInfo) -> str:
    """Return the words of what it began with, in one line."""
    while error.cls_name not in ("Failure", "OutageError") and error.cause is not None:
        error = error.cause
    text = " ".join(error.message.split())
    return text.partition(": ")[2] if text.startswith(("dagster._core", "platform_assets.")) else text


def kill(site_: Site, name: str, *, number: int) -> None:
    """Send a signal to one of the site's processes."""
    os.kill(site_.pid(name), number)


def _write_models(folder: Path, models: Sequence[str]) -> None:
    documents: list[tuple[Path, Any]] = [(folder / "datasets" / DATASET, (_DEFS / "datasets" / DATASET / "defs.yaml").read_text())]
    for name in models:
        document = yaml.safe_load((_DEFS / "models" / _MODEL / "defs.yaml").read_text())
        document["attributes"]["name"] = name
        documents.append((folder / "models" / name, yaml.safe_dump(document)))
    for place, text in documents:
        place.mkdir(parents=True)
        (place / "defs.yaml").write_text(text)


DAEMON, WEB, GATEWAY = site.DAEMON, site.WEB, site.GATEWAY
