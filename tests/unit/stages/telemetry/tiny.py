"""Samples for tests."""

from platform_assets.stages.telemetry.samples import Gpu, Sample

MIB = 2**20


def gpu(index=0, busy=0.9, **other):
    figures = {"memory_bytes": 30 * 1024 * MIB, "memory_total_bytes": 80 * 1024 * MIB, "power_watts": 400.0, "temperature_c": 60.0}
    return Gpu(index=index, utilisation=busy, **{**figures, **other})


def sample(at=0.0, **other):
    figures = {
        "rank": 0, "node": 0, "cpu_percent": 100.0, "rss_bytes": 900 * MIB, "private_bytes": 500 * MIB, "gpus": (),
        "samples_per_second": 1000.0, "data_wait": 0.02, "step": int(at * 10), "loss": 0.5,
    }  # fmt: skip
    return Sample(at=at, **{**figures, **other})
