"""Top operators of a real torch.profiler trace, against the profiler's own sums; and of GPU kernels in its format."""

import gzip
import json

import pytest

from platform_assets.errors import DataError
from platform_assets.stages.telemetry import trace
from platform_assets.stages.telemetry.trace import top_operators


def written(path, events):
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    return path


def event(name, ts, dur, *, cat="cpu_op", tid=1):
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}


def test_a_caller_is_not_charged_for_what_it_called(tmp_path):
    events = [
        event("outer", 0, 100), event("inner", 10, 60), event("leaf", 20, 20), event("outer", 200, 50), event("elsewhere", 20, 60, tid=2),
        {"ph": "M", "name": "process_name"}, event("a python frame", 0, 500, cat="python_function"),
    ]  # fmt: skip
    found = {one.name: (one.calls, one.self_ms) for one in top_operators(written(tmp_path / "t.json.gz", events))}
    assert found == {"outer": (2, 0.09), "elsewhere": (1, 0.06), "inner": (1, 0.04), "leaf": (1, 0.02)}


def test_kernels_come_apart_from_the_operators_that_launched_them(tmp_path):
    events = [
        event("aten::mm", 0, 10),
        event("sm90_gemm", 5, 400, cat="kernel", tid=7),
        event("Memcpy HtoD", 500, 100, cat="gpu_memcpy", tid=7),
    ]
    found = [(one.name, one.place, round(one.share, 2)) for one in top_operators(written(tmp_path / "t.json.gz", events))]
    assert found == [("sm90_gemm", "GPU", 0.8), ("Memcpy HtoD", "GPU", 0.2), ("aten::mm", "CPU", 1.0)]


def test_a_trace_without_operators_has_none(tmp_path):
    assert top_operators(written(tmp_path / "t.json.gz", [])) == []


@pytest.mark.parametrize("broken", ["no gzip", "cut", "no trace", "no JSON"])
def test_a_damaged_trace_is_one_sentence(tmp_path, broken):
    path = written(tmp_path / "t.json.gz", [event("aten::mm", 0, 10)] * 500)
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes({"no gzip": b"{}", "no trace": gzip.compress(b"{}"), "no JSON": gzip.compress(b"{")}[broken])
    with pytest.raises(DataError, match=r"t\.json\.gz is no whole trace"):
        top_operators(path)


def test_a_trace_that_would_fill_the_memory_is_left_to_perfetto(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "LARGEST_BYTES", 10)
    with pytest.raises(DataError, match="too large"):
        top_operators(written(tmp_path / "t.json.gz", []))


def test_a_real_trace_gives_the_profilers_own_figures(tmp_path):
    import torch
    from torch.profiler import ProfilerActivity, profile

    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            network(torch.zeros(256, 64)).sum().backward()
    profiler.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    found = {one.name: one for one in top_operators(tmp_path / "trace.json.gz", count=1000)}
    own = {one.key: (one.count, one.self_cpu_time_total / 1000) for one in profiler.key_averages()}
    assert found["aten::addmm"].calls == own["aten::addmm"][0] == 6
    assert found["aten::addmm"].self_ms == pytest.approx(own["aten::addmm"][1], rel=0.02, abs=0.01)
    assert sum(one.share for one in found.values()) == pytest.approx(1)


def test_a_small_trace_that_unpacks_to_a_large_one_is_left_to_perfetto(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "LARGEST_TEXT", 1000)
    with pytest.raises(DataError, match="unpacks to more"):
        top_operators(written(tmp_path / "t.json.gz", [event("aten::mm", 0, 10)] * 500))
