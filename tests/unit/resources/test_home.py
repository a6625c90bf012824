"""The home: held by one, tied to its sources, secrets made once, files never half-written."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from platform_assets.errors import StateError
from resources.home import bind_sources, ensure_secret, hold, read_sources, write_atomically
from resources.settings import Home, read_settings


def test_a_second_holder_is_told_who_holds_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with (
        hold(home, "falaj run"),
        pytest.raises(StateError, match=rf"held by falaj run \(pid {os.getpid()}, since"),
        hold(home, "falaj run"),
    ):
        pass
    with hold(home, "again"):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    script = f"from pathlib import Path; from resources.home import hold; from resources.settings import Home; import time\nwith hold(Home(Path({str(tmp_path)!r})), 'x'):\n print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with hold(Home(tmp_path), "next"):
        pass


def test_a_home_stays_with_its_sources(tmp_path: Path) -> None:
    home = Home(tmp_path)
    bind_sources(home, {"a": "/x.csv"})
    bind_sources(home, {"a": "/x.csv"})
    assert read_sources(home) == {"a": "/x.csv"}
    with pytest.raises(StateError, match=r"holds runs on a=/x\.csv; set FALAJ_HOME"):
        bind_sources(home, {"a": "/y.csv"})


def _secret(path: Path) -> bytes:
    return ensure_secret(path)


def test_makers_of_a_secret_at_the_same_time_agree_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "a.key"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = set(pool.map(_secret, [path] * 8))
    assert len(found) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["a.key"]


def test_a_writer_killed_at_any_moment_leaves_the_old_or_the_new_bytes(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"0" * 1_000_000)
    script = f"from pathlib import Path; from resources.home import write_atomically\nn=0\nwhile True:\n n=(n+1)%10; write_atomically(Path({str(target)!r}), str(n).encode()*1_000_000)"
    for delay in (0.15, 0.2, 0.25):
        process = subprocess.Popen([sys.executable, "-c", script])
        time.sleep(delay)
        process.kill()
        process.wait()
        content = target.read_bytes()
        assert len(content) == 1_000_000
        assert len(set(content)) == 1


def test_an_environment_without_parts_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALAJ_ENV", "cluster")
    with pytest.raises(StateError, match="this version has the parts of: laptop, team"):
        read_settings()


def test_a_wrong_port_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALAJ_WEB_PORT", "http")
    with pytest.raises(StateError, match="FALAJ_WEB_PORT='http' is no port"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [("FALAJ_SERVE_URL", "rollout:8151", "a scheme and a host"), ("FALAJ_STEPS", "pod", "right would be process or pods")],
)
def test_a_wrong_word_about_the_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StateError, match=f"{name} is '{value}'; .*{sentence}"):
        read_settings()
