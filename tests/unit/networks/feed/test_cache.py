"""Whole entries or none, made once, the longest unused gone first."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from platform_assets.errors import DataError
from platform_assets.networks.feed.cache import ShardCache

SIZE = 1000


def fetch(cache, key, *, calls=None, size=SIZE):
    def write(file):
        if calls is not None:
            calls.append(key)
        file.write(key[:1].encode() * size)

    return cache.fetch(key, write=write, read=lambda path: path.read_bytes())


def test_an_entry_is_made_once_and_found_by_any_later_cache(tmp_path):
    calls = []
    first, second = (ShardCache(tmp_path / "cache", limit_bytes=10_000) for _ in range(2))
    assert fetch(first, "a", calls=calls) == fetch(first, "a", calls=calls) == fetch(second, "a", calls=calls) == b"a" * SIZE
    assert calls == ["a"]
    assert (first.figures()["cache_hits"], first.figures()["cache_misses"], first.figures()["cache_hit_share"]) == (1, 1, 0.5)
    assert (second.figures()["cache_hit_share"], second.figures()["cache_hit_bytes"], second.figures()["cache_made_bytes"]) == (1, SIZE, 0)


def test_an_entry_that_another_made_just_now_is_taken_from_there(tmp_path):
    calls = []

    class Late(ShardCache):
        def _find(self, key, read):
            found = super()._find(key, read)
            if found is None:
                fetch(ShardCache(tmp_path, limit_bytes=10_000), key, calls=calls)
            return found

    assert fetch(Late(tmp_path, limit_bytes=10_000), "a", calls=calls) == b"a" * SIZE
    assert calls == ["a"]


def test_the_longest_unused_go_first_and_the_limit_holds(tmp_path):
    cache = ShardCache(tmp_path, limit_bytes=3 * SIZE)
    for key in "abcad":
        fetch(cache, key)
        time.sleep(0.01)
    assert {path.name for path in tmp_path.iterdir() if path.name != ".lock"} == {"a", "c", "d"}
    fetch(cache, "e", size=4 * SIZE)
    assert {path.name for path in tmp_path.iterdir() if path.name != ".lock"} == {"e"}


def test_a_removed_entry_stays_readable_to_whom_has_it_open(tmp_path):
    cache = ShardCache(tmp_path, limit_bytes=SIZE)
    file = cache.fetch("a", write=lambda file: file.write(b"a" * SIZE), read=lambda path: path.open("rb"))
    fetch(cache, "b")
    with file:
        assert not (tmp_path / "a").exists()
        assert file.read() == b"a" * SIZE


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    cache = ShardCache(tmp_path, limit_bytes=SIZE)

    def write(file):
        file.write(b"half")
        raise DataError("the rows are bad")

    with pytest.raises(DataError, match="rows are bad"):
        cache.fetch("a", write=write, read=lambda path: path.read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert fetch(cache, "a") == b"a" * SIZE


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    script = f"""
import resource, signal
from pathlib import Path
from platform_assets.networks.feed.cache import ShardCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
ShardCache(Path({str(tmp_path)!r}), limit_bytes=9999).fetch("a", write=lambda file: file.write(b"a" * 1000), read=Path.read_bytes)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "DataError: the shard cache" in ended.stderr
    assert "could not take an entry (File too large)" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def _fetch_many(folder):
    cache = ShardCache(folder, limit_bytes=10**6)
    rng = random.Random(os.getpid())
    right = all(fetch(cache, key, size=20_000) == key[:1].encode() * 20_000 for key in rng.choices("abcdefgh", k=60))
    return right, cache.misses


def test_processes_that_ask_at_once_make_each_entry_once(tmp_path):
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_fetch_many, [tmp_path] * 4))
    assert all(right for right, _ in found)
    assert sum(misses for _, misses in found) == 8


def _write_for_ever(folder):
    cache = ShardCache(folder, limit_bytes=30_000)

    def write(file):
        for _ in range(10):
            file.write(b"k" * 1000)
            file.flush()

    while True:
        cache.fetch(f"k{random.randrange(6)}", write=write, read=lambda path: path.read_bytes())


def test_sigkill_at_any_moment_leaves_whole_entries_and_locks_nobody_out(tmp_path):
    context = multiprocessing.get_context("fork")
    rng = random.Random(1)
    for _ in range(15):
        writer = context.Process(target=_write_for_ever, args=(tmp_path,))
        writer.start()
        time.sleep(rng.uniform(0.005, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for path in tmp_path.iterdir():
            if path.suffix != ".partial" and path.name != ".lock":
                assert path.read_bytes() == b"k" * 10_000
    cache = ShardCache(tmp_path, limit_bytes=30_000)
    assert fetch(cache, "new", size=10_000) == b"n" * 10_000
    assert [path for path in tmp_path.iterdir() if path.suffix == ".partial"] == []
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 30_000
