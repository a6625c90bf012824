"""A running training's figures in Prometheus' text format, as node_exporter's textfile collector takes them (no timestamps)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from platform_assets.stages.telemetry.samples import Gpu, Sample

# Names and units are a promise to dashboards and alerting rules: add, never rename.
HELP = {
    "falaj_training_updated_timestamp_seconds": "When the training's figures were last taken.",
    "falaj_training_step": "Steps done.",
    "falaj_training_loss": "Training loss, as last known.",
    "falaj_training_samples_per_second": "Rows learned from, all processes together.",
    "falaj_training_data_wait_ratio": "Share of the time spent waiting for the next batch, mean over processes.",
    "falaj_training_cpu_cores": "Cores in use by the training's processes of a node.",
    "falaj_training_resident_memory_bytes": "Resident memory of the training's processes of a node, mapped files included.",
    "falaj_training_private_memory_bytes": "Resident memory of the training's processes of a node without mapped files.",
    "falaj_training_gpu_utilisation_ratio": "Share of the time in which the GPU had work.",
    "falaj_training_gpu_memory_bytes": "Memory of the GPU in use.",
    "falaj_training_gpu_memory_total_bytes": "Memory of the GPU.",
    "falaj_training_gpu_power_watts": "Power that the GPU draws.",
    "falaj_training_gpu_temperature_celsius": "Temperature of the GPU.",
}
Row = tuple[str, Mapping[str, str], float]


def render(newest: Sequence[Sample], *, labels: Mapping[str, str]) -> str:
    """Write the newest sample of each process as gauges; `labels` (model, tenant, profile) go on each, unknown figures are left out."""
    by_name: dict[str, list[str]] = {}
    for name, own, value in _rows(newest):
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in {**labels, **own}.items())
        by_name.setdefault(name, []).append(f"{name}{{{pairs}}} {float(value)!r}")
    return "".join(f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n" + "\n".join(lines) + "\n" for name, lines in by_name.items())


def _rows(newest: Sequence[Sample]) -> Iterator[Row]:
    if not newest:
        return
    yield "falaj_training_updated_timestamp_seconds", {}, max(sample.at for sample in newest)
    yield "falaj_training_step", {}, max(sample.step for sample in newest)
    losses = [sample.loss for sample in newest if sample.loss is not None]
    rates = [sample.samples_per_second for sample in newest if sample.samples_per_second is not None]
    waits = [sample.data_wait for sample in newest if sample.data_wait is not None]
    if losses:
        yield "falaj_training_loss", {}, fmean(losses)
    if rates:
        yield "falaj_training_samples_per_second", {}, sum(rates)
    if waits:
        yield "falaj_training_data_wait_ratio", {}, fmean(waits)
    for node in sorted({sample.node for sample in newest}):
        yield from _node_rows(str(node), [sample for sample in newest if sample.node == node])


def _node_rows(node: str, samples: Sequence[Sample]) -> Iterator[Row]:
    own = {"node": node}
    yield "falaj_training_cpu_cores", own, sum(sample.cpu_percent for sample in samples) / 100
    yield "falaj_training_resident_memory_bytes", own, sum(sample.rss_bytes for sample in samples)
    private = [sample.private_bytes for sample in samples if sample.private_bytes is not None]
    if private:
        yield "falaj_training_private_memory_bytes", own, sum(private)
    for gpu in (gpu for sample in samples for gpu in sample.gpus):
        for name, value in _gpu_figures(gpu).items():
            if value is not None:
                yield f"falaj_training_gpu_{name}", {**own, "gpu": str(gpu.index)}, value


def _gpu_figures(gpu: Gpu) -> dict[str, float | None]:
    return {
        "utilisation_ratio": gpu.utilisation, "memory_bytes": gpu.memory_bytes, "memory_total_bytes": gpu.memory_total_bytes,
        "power_watts": gpu.power_watts, "temperature_celsius": gpu.temperature_c,
    }  # fmt: skip


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
