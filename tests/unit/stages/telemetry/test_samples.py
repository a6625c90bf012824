"""Telemetry files read whole, as they grow and as kills leave them; and what they sum up to."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.telemetry.samples import SampleReader, read_samples, samples_per_second, sum_up
from tests.unit.stages.telemetry.tiny import MIB, gpu, sample


def line(one):
    return json.dumps(asdict(one)).encode() + b"\n"


@given(cuts=st.lists(st.integers(0, 5000), max_size=12))
def test_however_a_file_grows_each_sample_is_read_once(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("out")
    wanted = [sample(float(n), gpus=(gpu(),)) for n in range(12)]
    whole = b"".join(line(one) for one in wanted)
    reader, found, before = SampleReader(folder), [], 0
    for cut in [*sorted({min(cut, len(whole)) for cut in cuts}), len(whole)]:
        with (folder / "telemetry.jsonl").open("ab") as file:
            file.write(whole[before:cut])
        before = cut
        found += reader.new()
    assert found == wanted
    assert reader.new() == []


def test_files_of_all_ranks_are_read_in_order_of_time(tmp_path):
    (tmp_path / "telemetry.jsonl").write_bytes(line(sample(1.0)) + line(sample(3.0)))
    (tmp_path / "telemetry-00001.jsonl").write_bytes(line(sample(2.0, rank=1)))
    assert [one.at for one in read_samples(tmp_path)] == [1.0, 2.0, 3.0]


def test_a_line_that_a_kill_cut_off_costs_itself_and_the_one_glued_to_it(tmp_path):
    (tmp_path / "telemetry.jsonl").write_bytes(line(sample(1.0)) + line(sample(2.0))[:40] + line(sample(3.0)) + line(sample(4.0)))
    assert [one.at for one in read_samples(tmp_path)] == [1.0, 4.0]


def test_a_folder_without_telemetry_has_no_samples(tmp_path):
    assert read_samples(tmp_path) == []
    assert sum_up([]) is None
    assert samples_per_second([]) is None


def test_processes_of_a_node_add_up_and_the_node_that_used_most_counts():
    samples = [
        one for second in range(100) for one in (
            sample(second, rank=0, node=0, cpu_percent=100.0), sample(second + 0.1, rank=1, node=0, cpu_percent=150.0),
            sample(second + 0.2, rank=2, node=1, cpu_percent=20.0, private_bytes=700 * MIB, samples_per_second=None, data_wait=None),
        )
    ]  # fmt: skip
    used = sum_up(samples)
    assert (used.cpu_cores_mean, used.cpu_cores_p95) == (pytest.approx(2.5), pytest.approx(2.5))
    assert (used.peak_memory_bytes, used.peak_rss_bytes) == (1000 * MIB, 1800 * MIB)
    assert used.data_wait == pytest.approx(0.02)
    assert used.seconds == pytest.approx(99.2)
    assert samples_per_second(samples) == pytest.approx(2000)


def test_the_95th_percent_is_exceeded_by_a_twentieth_of_the_samples():
    used = sum_up([sample(second, cpu_percent=100.0 * second) for second in range(100)])
    assert used.cpu_cores_p95 == pytest.approx(94)


def test_gpus_count_once_each_and_what_they_do_not_tell_is_left_out():
    samples = [
        sample(1.0, gpus=(gpu(0, busy=0.2, memory_bytes=10), gpu(1, busy=None, memory_bytes=None))),
        sample(2.0, gpus=(gpu(0, busy=0.4, memory_bytes=30), gpu(1, busy=None, memory_bytes=20))),
        sample(2.0, rank=1, node=1, gpus=(gpu(0, busy=0.6, memory_bytes=5),)),
    ]
    used = sum_up(samples)
    assert (used.gpus, used.gpu_utilisation, used.peak_gpu_memory_bytes) == (3, pytest.approx(0.4), 30)
    assert sum_up([sample(1.0)]).gpu_utilisation is None


def test_without_private_memory_resident_memory_is_held_against_the_profile():
    assert sum_up([sample(1.0, private_bytes=None)]).peak_memory_bytes == 900 * MIB
