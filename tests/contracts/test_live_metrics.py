"""What every place for gauges promises, and files for node_exporter's textfile collector besides."""

import os
import threading
import time

import pytest

from resources.live_metrics import TextfileMetrics
from resources.testing.live_metrics import MemoryMetrics

NAME = "falaj_training_hotels_abcd1234"


class Files(TextfileMetrics):
    @property
    def shown(self):
        return {path.stem: path.read_text() for path in self._folder.glob("*.prom")}


@pytest.fixture(params=["files", "memory"])
def metrics(request, tmp_path):
    return Files(tmp_path / "metrics") if request.param == "files" else MemoryMetrics()


def test_what_is_shown_replaces_what_stood_under_its_name(metrics):
    metrics.show(NAME, "one 1\n")
    metrics.show(f"{NAME}_other", "two 2\n")
    metrics.show(NAME, "one 3\n")
    assert metrics.shown == {NAME: "one 3\n", f"{NAME}_other": "two 2\n"}


def test_what_is_withdrawn_is_gone_and_may_be_withdrawn_again(metrics):
    metrics.show(NAME, "one 1\n")
    metrics.withdraw(NAME)
    metrics.withdraw(NAME)
    assert metrics.shown == {}


def test_a_reader_never_sees_half_a_file(tmp_path):
    metrics, done, seen = Files(tmp_path), threading.Event(), set()
    texts = {f"one {n}\n" * 20_000 for n in (1, 2)}

    def write():
        for _ in range(40):
            for text in texts:
                metrics.show(NAME, text)
        done.set()

    metrics.show(NAME, "one 1\n" * 20_000)
    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        seen.add((tmp_path / f"{NAME}.prom").read_text())
    writer.join()
    assert seen <= texts
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.prom"]


def test_files_of_killed_runs_go_after_their_retention_and_nobody_elses(tmp_path):
    old = time.time() - 1000
    for name in (f"{NAME}.prom", f".{NAME}.half", "falaj_training_fresh.prom", "somebody_elses.prom"):
        (tmp_path / name).write_text("one 1\n")
    for name in (f"{NAME}.prom", f".{NAME}.half", "somebody_elses.prom"):
        os.utime(tmp_path / name, (old, old))
    TextfileMetrics(tmp_path, retention_seconds=900).show("falaj_training_new", "one 1\n")
    assert {path.name for path in tmp_path.iterdir()} == {"falaj_training_new.prom", "falaj_training_fresh.prom", "somebody_elses.prom"}


def test_the_collectors_user_may_read_the_file(tmp_path):
    TextfileMetrics(tmp_path).show(NAME, "one 1\n")
    assert (tmp_path / f"{NAME}.prom").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written_is_logged_and_stops_nobody(tmp_path, caplog):
    (tmp_path / "metrics").write_text("a file stands in the way")
    TextfileMetrics(tmp_path / "metrics").show(NAME, "one 1\n")
    assert "were not written" in caplog.text
