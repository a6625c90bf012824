"""The kernel's word on memory: read from both versions of cgroups, and right about a process that it really killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_assets.stages.training.retry import KILLED, OUT_OF_MEMORY, judge
from resources.memory import Witness, count_oom_kills, look_at_family, memory_groups, memory_limit

LIMIT_BYTES = 96 << 20
HUNGRY = "import time\nheld = []\nwhile True:\n held.append(bytearray(b'x' * (4 << 20)))\n time.sleep(0.01)"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("line", "folder", "events"),
    [
        ("0::/a/b", "", "memory.events"),
        ("4:memory:/a/b", "memory", "memory.oom_control"),
        ("6:cpu,memory:/a/b", "memory", "memory.oom_control"),
    ],
)
def test_kills_are_counted_in_the_innermost_group_that_can_be_seen(tmp_path, line, folder, events):
    write(tmp_path / "proc" / "7" / "cgroup", f"{line}\n1:name=systemd:/a/b\n")
    root = tmp_path / "cgroups"
    write(root / folder / events, "low 0\noom_kill 5\n")
    assert [count_oom_kills(memory_groups(7, proc=tmp_path / "proc", root=root))] == [5], "as in a container, which sees only its own root"
    write(root / folder / "a" / "b" / events, "low 0\noom_kill 2\n")
    groups = memory_groups(7, proc=tmp_path / "proc", root=root)
    assert groups == [root / folder / "a" / "b", root / folder]
    assert count_oom_kills(groups) == 2


def test_a_process_that_is_gone_holds_nothing_and_is_in_no_group():
    assert memory_groups(2**30) == []
    assert look_at_family(2**30) == (0, 0.0)


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of our own with little memory."""
    base = next((folder for folder in memory_groups(os.getpid()) if (folder / "memory.limit_in_bytes").exists()), None)
    if base is None:
        pytest.skip("no cgroup of version 1 for memory: version 2 lets only a service manager make groups here")
    folder = base / f"falaj-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield folder
    for _ in range(100):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return


def start(code: str, group: Path) -> subprocess.Popen[bytes]:
    join = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\nprint('in', flush=True)\nimport sys; sys.stdin.readline()\n"
    process = subprocess.Popen([sys.executable, "-c", join + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    return process


def test_a_process_that_the_kernel_killed_for_memory_is_told_from_one_that_somebody_killed(group):
    verdicts = []
    for code in (HUNGRY, "import time; time.sleep(60)"):
        process = start(code, group)
        witness = Witness(process.pid)
        assert memory_limit(process.pid) == LIMIT_BYTES
        process.stdin.write(b"\n")
        process.stdin.flush()
        if code != HUNGRY:
            process.kill()
        while process.poll() is None:
            witness.look()
            time.sleep(0.02)
        assert process.returncode == -9
        process.communicate()
        verdicts.append(judge(None, code=process.returncode, memory=witness.memory()).outcome)
    assert verdicts == [OUT_OF_MEMORY, KILLED]
