"""Area `faults`: a small declared pipeline on a team's real servers, what breaks under it, and whether anything is lost.

Each fault meets a run that is in the middle of its training; the fault is there for so long, and then over. What is looked at afterwards:
one event is one run (with those that went on with it), no run hangs or holds its slot, no event waits or is a dead letter, the
audit log verifies, the release that was made opens and is live. `python -m platform_assets.main_job.bench.faults ROWS.json` prints the page
docs/reference/reliability.md from what `falaj bench faults --json ROWS.json` wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import judge_row
from platform_assets.main_job.bench.fault_site import DAEMON, DATASET, WEB, Site, kill, patiently
from resources.dagster_instance.gate import AGAIN_TAG, is_tried_again
from resources.dagster_instance.warm_launcher import PROCESS_TAG

if TYPE_CHECKING:
    from rich.console import Console

    from platform_assets.main_job.bench.core import Row

_BEGIN_SECONDS, _END_SECONDS, _SETTLE_SECONDS = 180.0, 400.0, 180.0
_SENSOR_SECONDS = 45.0
_DISK_BYTES = 2 << 30
_STEP_SECONDS, _LONG = 3600, struct.Struct("l")


@dataclass(frozen=True)
class Fault:
    """What is broken while a run trains, for how long, and how it is mended. Both may say something that belongs into the table."""

    name: str
    what: str
    strike: Callable[[Site], str | None]
    mend: Callable[[Site], str | None]
    seconds: float
    before: Callable[[Site], None] | None = None


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Let each fault come over a run. Quick: three of them."""
    faults = [fault for fault in _FAULTS if not quick or fault.name in _QUICK]
    rows = []
    with tempfile.TemporaryDirectory(prefix="falaj-faults-") as name:
        site = Site(Path(name), models=[fault.name for fault in faults])
        with _small_disk(site.home.root.parent), site.running():
            for fault in faults:
                console.print(f"faults, {fault.what} ...")
                rows.append(_try(site, fault))
                console.print(
                    f"  {rows[-1]['went_on']}; {rows[-1]['seconds']:.0f} s; {rows[-1]['complaints'] or 'nothing lost'}", soft_wrap=True
                )
    return rows


def _try(site: Site, fault: Fault) -> Row:
    """Let one fault come; what never comes to an end is a row, too, and the next one has its turn."""
    try:
        return _suffer(site, fault)
    except FalajError as error:
        with suppress(FalajError, OSError, subprocess.SubprocessError):  # it may be mended already
            fault.mend(site)
        row = judge_row(f"{fault.what}: lost, twice or hanging", value=1, unit="", must=0, better="lower")
        return {**row, "fault": fault.what, "went_on": "not", "seconds": float("nan"), "complaints": [str(error)], "said": []}


def _suffer(site: Site, fault: Fault) -> Row:
    if fault.before is not None:
        fault.before(site)
    event = site.ask("falaj.retraining.asked", fault.name, model=fault.name)
    patiently(lambda: site.begun(event, "trained"), seconds=_BEGIN_SECONDS, what=f"the training of {fault.name}")
    struck = time.monotonic()
    said = [fault.strike(site)]
    time.sleep(max(0.0, fault.seconds - (time.monotonic() - struck)))
    said.append(fault.mend(site))
    mended = time.monotonic()
    runs = patiently(lambda: _ended(site, event), seconds=_END_SECONDS, what=f"the end of the run of {fault.name}")
    went_on = "in the same run" if len(runs) == 1 else "by itself, in another run"
    said += [f"a step waited: {sentence}" for run in runs for sentence in site.waits(run)[:1]]
    if len(runs) > 1 or runs[0].status is not dg.DagsterRunStatus.SUCCESS:
        said.append(f"the run said: {site.last_words(runs[-1])}")
    if runs[0].status is not dg.DagsterRunStatus.SUCCESS:
        went_on = "when it was asked again"
        again = site.ask("falaj.retraining.asked", f"{fault.name}-again", model=fault.name)
        (run, *_) = patiently(lambda: _ended(site, again), seconds=_END_SECONDS, what=f"the second run of {fault.name}")
        if run.status is not dg.DagsterRunStatus.SUCCESS:
            went_on = f"not, also when asked again: {site.last_words(run)}"
    seconds = time.monotonic() - mended
    complaints = _settled(site, event, fault.name)
    row = judge_row(f"{fault.what}: lost, twice or hanging", value=len(complaints), unit="", must=0, better="lower")
    return {
        **row, "fault": fault.what, "went_on": went_on, "seconds": seconds, "complaints": complaints,
        "said": [sentence for sentence in said if sentence],
    }  # fmt: skip


def _ended(site: Site, event: str) -> list[dg.DagsterRun] | None:
    """Return the runs of an event, newest first, once none goes on: a failed one may be asked for again until the sensor has seen it."""
    runs = site.runs(event)
    if not runs or not runs[0].is_finished or is_tried_again(runs[0]):
        return None
    if runs[0].status is not dg.DagsterRunStatus.SUCCESS and time.time() - site.ended_at(runs[0]) < _SENSOR_SECONDS:
        return None
    return runs


def _settled(site: Site, event: str, model: str) -> list[str]:
    """Complaints that stay: an event is answered for a tick after the one that acted on it."""
    try:
        patiently(lambda: not site.complaints(event, model), seconds=_SETTLE_SECONDS, what="peace", every=2.0)
    except FalajError:
        return site.complaints(event, model)
    return []


def _nothing(_: Site) -> None:
    """Mend what mends itself."""


def _stop_postgres(site: Site) -> None:
    site.postgres.stop()


def _start_postgres(site: Site) -> None:
    site.postgres.start()


def _stop_redis(site: Site) -> None:
    site.redis.stop()


def _start_redis(site: Site) -> None:
    site.redis.start()


def _empty_redis(site: Site) -> str:
    """Take away what Redis holds, an event among it that nobody has acted on yet."""
    kill(site, DAEMON, number=signal.SIGSTOP)
    try:
        site.ask("falaj.data.landed", "waits-while-emptied", dataset=DATASET)
        site.redis.stop()
        site.redis.empty()
        site.redis.start()
    finally:
        kill(site, DAEMON, number=signal.SIGCONT)
    return "an event that waited in it is gone with it"


def _send_again(site: Site) -> str:
    """Do as a sender does that got no answer: it is acted on then, and what was acted on before is not a second time."""
    known = site.ask("falaj.retraining.asked", "redis_emptied", model="redis_emptied")
    lost = site.ask("falaj.data.landed", "waits-while-emptied", dataset=DATASET)
    patiently(lambda: site.runs(lost), seconds=_SETTLE_SECONDS, what="the run of the event that was sent again")
    roots = [run for run in site.runs(known) if run.parent_run_id is None and AGAIN_TAG not in run.tags]
    return f"sent again it was acted on; one that had been acted on before was {'not' if len(roots) == 1 else ''} a second time"


def _kill_daemon(site: Site) -> str:
    kill(site, DAEMON, number=signal.SIGKILL)
    site.ask("falaj.data.landed", "waits-for-the-daemon", dataset=DATASET)
    return "what was asked meanwhile waited"


def _start_again(site: Site) -> None:
    site.falaj("up")


def _kill_run(site: Site) -> None:
    (run, *_) = site.runs("/bench#run_killed")
    os.kill(int(run.tags[PROCESS_TAG].partition(":")[0]), signal.SIGKILL)


def _kill_web(site: Site) -> str:
    kill(site, WEB, number=signal.SIGKILL)
    token = site.falaj("token", "--role", "viewer").strip()
    request = urllib.request.Request(f"http://127.0.0.1:{site.web_port}/server_info", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - our own loopback address
            return f"the gateway answered {reply.status}"
    except urllib.error.HTTPError as error:
        return f"the gateway answered {error.code}: {json.loads(error.read())['errors'][0]['message']}"


def _fill_disk(site: Site) -> None:
    ballast = site.home.root.parent / "ballast"
    with ballast.open("wb") as file:
        found = os.statvfs(ballast.parent)
        os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - (1 << 20)))
        file.seek(0, os.SEEK_END)
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:  # full
            return


def _free_disk(site: Site) -> None:
    (site.home.root.parent / "ballast").unlink()


def _fake_clock(site: Site) -> None:
    """Start the site anew, its processes reading their wall clocks through a file that says how far they are off."""
    site.falaj("down")
    (site.folder / "clock").write_bytes(bytes(_LONG.size))
    site.more = {"LD_PRELOAD": str(_built_clock(site.folder)), "FALAJ_BENCH_CLOCK": str(site.folder / "clock")}
    site.falaj("up")


def _step_clock(site: Site) -> None:
    _set_step(site, _STEP_SECONDS)


def _step_back(site: Site) -> None:
    _set_step(site, 0)


def _set_step(site: Site, seconds: int) -> None:
    with (site.folder / "clock").open("r+b") as file:  # in place: the processes have it mapped
        file.write(_LONG.pack(seconds))


def _built_clock(folder: Path) -> Path:
    """Compile the clock that can be stepped. FalajError where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FalajError("bench: a stepped clock is compiled, and there is no cc on this machine; install Debian's package gcc")
    source, library = Path(__file__).parent / "fault_defs" / "clock.c", folder / "clock.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


_FAULTS: Sequence[Fault] = (
    Fault("postgresql_restarted", "PostgreSQL killed, back after 3 s", _stop_postgres, _start_postgres, 3.0),
    Fault("postgresql_away", "PostgreSQL killed, back after 30 s", _stop_postgres, _start_postgres, 30.0),
    Fault("redis_restarted", "Redis killed, back after 10 s", _stop_redis, _start_redis, 10.0),
    Fault("redis_emptied", "Redis killed and emptied", _empty_redis, _send_again, 1.0),
    Fault("store_500", "object store answers 500 for 30 s", lambda site: site.store.be("500"), lambda site: site.store.be("ok"), 30.0),
    Fault(
        "store_slow",
        "object store takes 8 s an answer for 30 s",
        lambda site: site.store.be("slow"),
        lambda site: site.store.be("ok"),
        30.0,
    ),
    Fault("daemon_killed", "daemon killed, started after 20 s", _kill_daemon, _start_again, 20.0),
    Fault("run_killed", "process of the run killed", _kill_run, _nothing, 0.0),
    Fault("web_killed", "web server killed, started after 5 s", _kill_web, _start_again, 5.0),
    Fault("disk_full", "disk of the home full for 20 s", _fill_disk, _free_disk, 20.0),
    Fault("clock_stepped", "clock an hour ahead for 15 s, then back", _step_clock, _step_back, 15.0, _fake_clock),
)

_QUICK = ("postgresql_restarted", "daemon_killed", "run_killed")


@contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    """Have a disk of its own for the home, in memory. FalajError where this user may not mount one."""
    place.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "falaj-bench", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise FalajError(f"bench: a full disk needs one of its own, and mount said: {done.stderr.strip()}; run it as root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def page_of(value: dict[str, Any]) -> str:
    """Return the page of the reference."""
    head = (Path(__file__).parent / "fault_defs" / "page.md").read_text()
    lines = [
        "| what broke, in the middle of a training | how it went on | s from mended to done | what it said | lost, twice, stuck |",
        "|---|---|---|---|---|",
    ]
    for row in value["rows"]:
        said = "; ".join(row["said"]).replace("|", "/") or "nothing"
        lines.append(f"| {row['fault']} | {row['went_on']} | {row['seconds']:.0f} | {said} | {'; '.join(row['complaints']) or '0'} |")
    return head.format(date=value["date"], machine=value["machine"], command=value["command"], table="\n".join(lines))


if __name__ == "__main__":
    sys.stdout.write(page_of(json.loads(Path(sys.argv[1]).read_text())))
