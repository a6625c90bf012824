"""What every feed promises, held against both; what the shard feed adds: shuffling, devices, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import TrainingError
from platform_assets.networks.feed.cache import ShardCache
from platform_assets.networks.feed.encoded import encode_splits, fit_once
from platform_assets.networks.feed.order import Blocks, EpochOrder
from platform_assets.networks.feed.shard_feed import ShardFeed
from platform_assets.networks.feed.tensors import TensorFeed
from platform_assets.networks.shards import write_training_set
from platform_assets.specs.records import Feature, FeatureSchema
from tests.unit.networks.tiny import PICTURES, write_set

ROWS = 203
BLOCKS = Blocks(rows=4, window=5)
NUMBERED = FeatureSchema((Feature("number", "numeric", "view", "key"),), "label", ("0", "1"), "key", "at")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feeds")
    table = pa.table({"number": np.arange(ROWS, dtype=float), "label": [str(row % 2) for row in range(ROWS)]})
    data = folder / "data"
    write_training_set(data, {"train": [table], "calibration": [table[:1]], "holdout": [table[:1]]}, schema=NUMBERED, shard_rows=31)
    cache = ShardCache(folder / "cache", limit_bytes=10**9)
    return encode_splits(data, schema=NUMBERED, preprocessing=fit_once(data, schema=NUMBERED, cache=cache), cache=cache)["train"]


@pytest.fixture(scope="module", params=["tensors", "shards"])
def make(request, split):
    def tensors(**how):
        rows = torch.arange(ROWS)
        return TensorFeed((rows[:, None].float(), torch.empty(ROWS, 0).long(), torch.empty(ROWS, 0), rows % 2), **how)

    def shards(**how):
        return ShardFeed(split, blocks=BLOCKS, **how)

    return tensors if request.param == "tensors" else shards


def numbers(batches):
    return [batch[0][:, 0].int().tolist() for batch in batches]


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(5, 250), seed=st.integers(0, 2**40), epoch=st.integers(0, 9))
def test_an_epoch_gives_every_row_once_but_the_tail_that_fills_no_batch(make, batch, seed, epoch):
    feed = make(batch=batch, seed=seed)
    given_out = Counter(number for one in numbers(feed.batches(epoch)) for number in one)
    assert set(given_out.values()) == {1}
    assert set(given_out) <= set(range(ROWS))
    assert sum(given_out.values()) == feed.steps * min(batch, ROWS)
    assert feed.rows == ROWS
    assert ROWS - sum(given_out.values()) < batch


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(5, 90), world=st.integers(1, 5), seed=st.integers(0, 99))
def test_ranks_share_the_same_global_batches_whatever_their_number(make, batch, world, seed):
    alone = numbers(make(batch=batch, seed=seed).batches(1))
    together = [numbers(make(batch=batch, seed=seed, rank=rank, world=world).batches(1)) for rank in range(world)]
    assert [[number for part in parts for number in part] for parts in zip(*together, strict=True)] == alone
    assert {len(part) for parts in together for part in parts} <= {batch // world, -(-batch // world)}


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(5, 90), start=st.integers(0, 45), world=st.integers(1, 3))
def test_starting_at_a_step_is_skipping_the_steps_before(make, batch, start, world):
    feed = make(batch=batch, seed=1, rank=world - 1, world=world)
    assert numbers(feed.batches(2, start=start)) == numbers(feed.batches(2))[start:]


def test_epochs_and_seeds_differ_and_repeat_themselves(make):
    orders = {(seed, epoch): str(numbers(make(batch=20, seed=seed).batches(epoch))) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert all(str(numbers(make(batch=20, seed=seed).batches(epoch))) == order for (seed, epoch), order in orders.items())


def test_what_belongs_together_stays_together_and_has_its_type(make):
    for numeric, ids, image, target in make(batch=20, seed=1).batches(0):
        assert (numeric[:, 0].long() % 2 == target).all()
        assert [part.dtype for part in (numeric, ids, image, target)] == [torch.float32, torch.int64, torch.float32, torch.int64]
        assert [tuple(part.shape) for part in (numeric, ids, image, target)] == [(20, 1), (20, 0), (20, 0), (20,)]
        assert numeric.is_contiguous()


@pytest.mark.parametrize("batch", [1, 20])
def test_a_batch_given_out_is_not_changed_by_the_next(make, batch):
    batches = make(batch=batch, seed=1).batches(0)
    first = next(batches)
    before = [part.clone() for part in first]
    list(batches)
    assert all(torch.equal(one, other) for one, other in zip(first, before, strict=True))


def test_more_ranks_than_rows_in_a_batch_are_refused(make):
    with pytest.raises(TrainingError, match="batch of 3 rows cannot be shared by 4 ranks"):
        make(batch=3, seed=1, rank=0, world=4)


def test_a_feed_left_in_the_middle_ends_its_reader(split):
    import threading

    batches = ShardFeed(split, batch=10, seed=1, blocks=BLOCKS).batches(0)
    list(islice(batches, 3))
    batches.close()
    del batches
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 300), block=st.integers(1, 9), window=st.integers(1, 9), epoch=st.integers(0, 3))
def test_the_windows_of_an_epoch_cut_up_all_rows(rows, block, window, epoch):
    order = EpochOrder(rows, blocks=Blocks(block, window), seed=7, epoch=epoch)
    windows = [order.window(number) for number in range(order.windows)]
    assert sorted(row for part, _ in windows for row in part.tolist()) == list(range(rows))
    for number, (part, dealt) in enumerate(windows):
        assert (np.diff(part) > 0).all()
        assert sorted(dealt.tolist()) == list(range(len(part)))
        assert order.starts[number + 1] - order.starts[number] == len(part)


def test_rows_of_time_are_mixed_nearly_as_by_a_whole_shuffle():
    # Rows stand in the order of time. Of a whole shuffle, the mean place of a batch varies as that of a random draw, and its rows seldom
    # were neighbours; the blocks come close to both.
    rows, batch = 400_000, 1024
    order = EpochOrder(rows, blocks=Blocks.of(184), seed=3, epoch=0)
    dealt = np.concatenate([part[places] for part, places in map(order.window, range(order.windows))])
    batches = dealt[: rows // batch * batch].reshape(-1, batch)
    drawn = rows / np.sqrt(12 * batch)
    assert batches.mean(axis=1).std() < 1.25 * drawn
    neighbours = np.mean([np.isin(one + 1, one).mean() for one in batches])
    assert neighbours < 0.01  # a whole shuffle: 0.0026
    steps = np.abs(np.diff(dealt)) / rows
    assert abs(steps.mean() - 1 / 3) < 0.01  # two places drawn at random are a third of the whole apart
    assert abs(np.corrcoef(dealt, np.arange(rows))[0, 1]) < 0.02


def test_the_split_is_read_in_order_and_its_parts_by_number(split):
    assert [number for chunk in split.chunks(8) for number in chunk[0][:, 0].int().tolist()] == list(range(ROWS))
    assert split.take(np.array([0, 30, 31, 31, 202]))[0][:, 0].tolist() == [0, 30, 31, 31, 202]
    assert split.labels().tolist() == [row % 2 for row in range(ROWS)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_copied_ahead_to_a_gpu_are_those_of_the_cpu(split):
    there, here = (ShardFeed(split, batch=10, seed=1, blocks=BLOCKS, device=torch.device(kind)) for kind in ("cuda", "cpu"))
    for one, other in zip(there.batches(3, start=2), here.batches(3, start=2), strict=True):
        assert all(part.is_cuda and torch.equal(part.cpu(), same) for part, same in zip(one, other, strict=True))


PRIVATE = """
import sys, torch
from pathlib import Path
from platform_assets.networks.feed.cache import ShardCache
from platform_assets.networks.feed.encoded import encode_splits, fit_once
from platform_assets.networks.feed.order import Blocks
from platform_assets.networks.feed.shard_feed import ShardFeed
from platform_assets.networks.shards import read_schema
torch.set_num_threads(1)
for size in sys.argv[1:]:
    data = Path(size)
    cache = ShardCache(data.parent / (data.name + "_cache"), limit_bytes=10**9)
    schema = read_schema(data)
    split = encode_splits(data, schema=schema, preprocessing=fit_once(data, schema=schema, cache=cache), cache=cache)["train"]
    feed = ShardFeed(split, batch=256, seed=1, blocks=Blocks(32, 128))
    for epoch in range(2):
        for batch in feed.batches(epoch):
            pass
    lines = Path("/proc/self/status").read_text().splitlines()
    print(*(line.split()[1] for line in lines if line.startswith("RssAnon:")), split.rows)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="private memory is read from Linux's /proc")
def test_ten_times_the_rows_take_no_more_private_memory(tmp_path):
    rng = np.random.default_rng(1)
    for size, rows in (("once", 20_000), ("tenfold", 200_000)):
        images = pa.FixedSizeListArray.from_arrays(rng.random(rows * 64, np.float32), 64)
        table = pa.table({"image": images, "label": np.array(list("abc"))[rng.integers(0, 3, rows)]})
        write_set(tmp_path / size, table, PICTURES, train=0.98, shard_rows=8192)
    found = subprocess.run(
        [sys.executable, "-c", PRIVATE, str(tmp_path / "once"), str(tmp_path / "tenfold")], capture_output=True, text=True, check=True,
        # glibc raises these thresholds as it goes; held, the figures repeat themselves.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
    )  # fmt: skip
    (once, few), (tenfold, many) = (map(int, line.split()) for line in found.stdout.splitlines())
    assert many == 10 * few
    assert tenfold < 1.1 * once, f"{once} and {tenfold} kB"
