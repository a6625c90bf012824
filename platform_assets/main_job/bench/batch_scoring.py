"""Batch scoring of a Parquet file by the whole command `falaj predict`, against bare onnxruntime with the same rows in memory.

The peer gets its arrays ready made and comes in two forms: one session on all cores, and a thread a core that runs it with one thread each,
which few take the trouble of. Its time leaves out its own start, reading and writing; the command's leaves out nothing. Beside them a
script as one writes it by hand: it starts, reads the file with pyarrow, runs one session on all cores and writes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import FalajError
from platform_assets.main_job.bench.core import Row, describe_row, interleave, judge_row, run_contestant
from platform_assets.specs.records import Feature, FeatureSchema

if TYPE_CHECKING:
    from rich.console import Console

    from resources.settings import Settings

ROWS, QUICK_ROWS = 1_000_000, 100_000
_NUMBERS, _CATEGORIES = 12, 8
_VALUES = [f"value {number}" for number in range(40)]
_CHUNK = 4096
_THREADS = 2


def measure(*, quick: bool, console: Console) -> list[Row]:
    """Score a file with the perceptron of the anchors and with a released network of numbers and categories; medians of three rounds."""
    rows = QUICK_ROWS if quick else ROWS
    found: list[Row] = []
    for name, make in (
        ("MLP 64-256-256-2", make_numbers),
        ("tabular_mlp, 12 numbers, 8 categories, preprocessing in the graph", make_mixed),
    ):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            schema, graph = make()
            write_inputs(root, schema, rows=rows)
            (root / "model.onnx").write_bytes(graph)
            settings = _release(root, schema=schema, graph=graph)
            console.print(f"batch scoring, {name}, {rows:,} rows of Parquet ...")
            runs = {
                "command": partial(_run_command, settings, root),
                "script": partial(_run_script, root),
                "one session": partial(run_contestant, __name__, ["bare", str(root), "--sessions", "1"]),
                "a session a core": partial(run_contestant, __name__, ["bare", str(root), "--sessions", str(_THREADS)]),
            }
            medians = interleave(runs, repeats=1 if quick else 3)
            _assert_equal(root)
        found += _describe(name, medians, rows=rows)
    return found


def _describe(name: str, medians: dict[str, dict[str, float]], *, rows: int) -> list[Row]:
    rates = {who: rows / figures["wall_seconds"] for who, figures in medians.items()}
    what = f"batch scoring, {name}, {rows:,} rows"
    ours = medians["command"]
    return [
        describe_row(f"{what}: `falaj predict` with start, reading and writing", value=round(rates["command"]), unit="rows/s"),
        describe_row(f"{what}: its CPU against bare onnxruntime's", value=round(1e6 * ours["cpu_seconds"] / rows, 2), unit="us a row",
                     against=round(1e6 * medians["a session a core"]["cpu_seconds"] / rows, 2)),
        describe_row(f"{what}: its peak memory", value=round(ours["peak_mib"]), unit="MiB"),
        describe_row(f"{what}: a script by hand, with start, reading and writing", value=round(rates["script"]), unit="rows/s"),
        describe_row(f"{what}: `falaj predict` against that script", value=round(rates["command"] / rates["script"], 3), unit="x"),
        *(
            judge_row(
                f"{what}: `falaj predict`, all in all", value=round(rates["command"] / rates[who], 3), unit="x", must=0.8,
                better="higher", against=f"bare onnxruntime with the data in memory, {who}, {rates[who]:,.0f} rows/s, equal answers",
            )
            for who in ("one session", "a session a core")
        ),
    ]  # fmt: skip


def _schema(features: list[Feature]) -> FeatureSchema:
    return FeatureSchema(tuple(features), target="outcome", classes=("0", "1"), key="row_id", event_time="happened")


def make_numbers() -> tuple[FeatureSchema, bytes]:
    """Give the perceptron of the issue's anchors as a graph, and its schema."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    nodes, constants, last = [], [], "numeric"
    for place, (wide, narrow) in enumerate(((64, 256), (256, 256), (256, 2))):
        weights, shift = random.normal(0, wide**-0.5, (wide, narrow)), random.normal(0, 0.1, narrow)
        constants += [numpy_helper.from_array(value.astype(np.float32), f"{kind}{place}") for kind, value in (("w", weights), ("b", shift))]
        nodes.append(helper.make_node("Gemm", [last, f"w{place}", f"b{place}"], [f"h{place}"]))
        last = f"h{place}"
        if narrow != 2:  # noqa: PLR2004 - classes
            nodes.append(helper.make_node("Relu", [last], [f"r{place}"]))
            last = f"r{place}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes, "mlp", [helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return _schema([Feature(f"n{place}", "numeric", "own", "row_id") for place in range(64)]), model.SerializeToString()


def make_mixed() -> tuple[FeatureSchema, bytes]:
    """Give an untrained network of ours as it is released: look-up of categories and encoding of numbers inside."""
    import torch

    from platform_assets.networks.architectures import build_network
    from platform_assets.networks.checkpoint import Trained
    from platform_assets.networks.export import export_onnx
    from platform_assets.networks.plans import TrainingPlan
    from platform_assets.networks.preprocessing import CategoryColumn, NumberColumn, Preprocessing

    torch.manual_seed(1)
    edges = tuple(np.linspace(-2, 2, 13).tolist())
    schema = _schema([
        *(Feature(f"n{place}", "numeric", "own", "row_id") for place in range(_NUMBERS)),
        *(Feature(f"c{place}", "category", "own", "row_id") for place in range(_CATEGORIES)),
    ])  # fmt: skip
    fitted = Preprocessing(
        numbers=tuple(NumberColumn(f"n{place}", False, 0.0, 0.0, 1.0, edges) for place in range(_NUMBERS)),
        categories=tuple(CategoryColumn(f"c{place}", tuple(_VALUES[:-2])) for place in range(_CATEGORIES)), image_size=0, image_scale=1.0,
    )  # fmt: skip
    plan = TrainingPlan(architecture="tabular_mlp", kind="binary", width=64, depth=2)
    trained = Trained(build_network(plan, preprocessing=fitted, classes=2).eval(), plan, fitted, schema)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(trained, path)
        return schema, path.read_bytes()


def write_inputs(root: Path, schema: FeatureSchema, *, rows: int) -> None:
    """Write seeded rows as Parquet, and as the arrays that the graph takes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(2)
    columns: dict[str, Any] = {"row_id": pa.array(np.char.add("r", np.arange(rows).astype(str)))}
    numbers, codes = [], []
    for feature in schema.features:
        if feature.kind == "numeric":
            values = random.normal(size=rows).astype(np.float32)
            missing = random.random(rows) < 0.02  # noqa: PLR2004 - a few
            numbers.append(values if schema.of_kind("category") == () else np.where(missing, np.nan, values).astype(np.float32))
            columns[feature.name] = pa.array(numbers[-1], from_pandas=True)
        else:
            codes.append(random.integers(0, len(_VALUES), rows).astype(np.int8))
            columns[feature.name] = pa.array(np.array(_VALUES)[codes[-1]])
    np.save(root / "numeric.npy", np.column_stack(numbers))
    if codes:
        np.save(root / "codes.npy", np.column_stack(codes))
    pq.write_table(pa.table(columns), root / "rows.parquet", row_group_size=131_072)


def _release(root: Path, *, schema: FeatureSchema, graph: bytes) -> Settings:
    from resources.testing.released import write_released_home

    return write_released_home(root, schema=schema, graph=graph)


def _run_command(settings: Settings, root: Path) -> dict[str, float]:
    from resources.settings import child_environment
    from resources.testing.released import MODEL

    command = [sys.executable, "-m", __name__, "command", str(root), "--model", MODEL]
    done = subprocess.run(command, env=child_environment(settings), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FalajError(f"bench: falaj predict ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def run_command(root: Path, *, model: str) -> dict[str, float]:
    """Run the command as a user would, in a process of its own; its wall time from start to end, CPU and peak memory."""
    import resource

    command = [sys.executable, "-m", "platform_assets.cli", "predict", model, "--file", str(root / "rows.parquet")]
    began = time.perf_counter()
    subprocess.run([*command, "--out", str(root / "answers.parquet")], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_seconds": wall, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}


def _run_script(root: Path) -> dict[str, float]:
    """Run the script in a process of its own; its wall time from start to end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _SCRIPT, str(root), str(_CHUNK)], check=True)
    return {"wall_seconds": time.perf_counter() - began}


_SCRIPT = """
import sys, numpy as np, onnxruntime as ort, pyarrow as pa, pyarrow.parquet as pq
root, chunk = sys.argv[1], int(sys.argv[2])
table = pq.read_table(f"{root}/rows.parquet")
floats = [name for name in table.column_names if pa.types.is_floating(table.schema.field(name).type)]
texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type) and name != "row_id"]
arrays = {"numeric": np.column_stack([table[name].to_numpy() for name in floats])}
if texts:
    arrays["categorical"] = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in texts]).astype(object)
session = ort.InferenceSession(f"{root}/model.onnx", providers=["CPUExecutionProvider"])
found = np.concatenate([
    session.run(None, {name: array[at : at + chunk] for name, array in arrays.items()})[0] for at in range(0, table.num_rows, chunk)
])
answers = {"label": np.array(["0", "1"])[found.argmax(axis=1)], "probability": found.max(axis=1)}
shares = {f"probability_{at}": found[:, at] for at in (0, 1)}
pq.write_table(pa.table({"row_id": table["row_id"], **answers, **shares}), f"{root}/script.parquet")
"""


def run_bare(root: Path, *, sessions: int) -> dict[str, float]:
    """Answer arrays in memory by bare onnxruntime: one session that uses all cores, or a thread with a session a core."""
    import onnxruntime as ort

    arrays = {"numeric": np.load(root / "numeric.npy")}
    if (root / "codes.npy").exists():
        arrays["categorical"] = np.array(_VALUES, dtype=object)[np.load(root / "codes.npy")]
    options = ort.SessionOptions()
    options.intra_op_num_threads = _THREADS if sessions == 1 else 1
    session = ort.InferenceSession(root / "model.onnx", sess_options=options, providers=["CPUExecutionProvider"])

    def run(start: int) -> np.ndarray:
        found: np.ndarray = session.run(None, {name: array[start : start + _CHUNK] for name, array in arrays.items()})[0]
        return found

    starts = range(0, len(arrays["numeric"]), _CHUNK)
    run(0)
    with ThreadPoolExecutor(sessions) as pool:
        began, used = time.perf_counter(), time.process_time()
        answers = np.concatenate(list(map(run, starts) if sessions == 1 else pool.map(run, starts)))
        wall, cpu = time.perf_counter() - began, time.process_time() - used
    np.save(root / "bare.npy", answers)
    return {"wall_seconds": wall, "cpu_seconds": cpu}


def _assert_equal(root: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(root / "answers.parquet")
    ours = np.column_stack([table["probability_0"].to_numpy(), table["probability_1"].to_numpy()])
    if not np.allclose(ours, np.load(root / "bare.npy"), atol=1e-5):
        raise FalajError(
            "bench: falaj predict and bare onnxruntime answered the same rows and differ; a figure of speed would mean nothing"
        )


def main(arguments: list[str]) -> None:
    """Run one contestant; print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", choices=("command", "bare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--model", default="")
    options = parser.parse_args(arguments)
    bare = options.contestant == "bare"
    figures = run_bare(options.folder, sessions=options.sessions) if bare else run_command(options.folder, model=options.model)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
