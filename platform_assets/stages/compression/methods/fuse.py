"""Constants folded and operators fused once, here, by onnxruntime, rather than at each start; names shortened and notes dropped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from platform_assets.stages.compression.graph import serialise, short_name, write_graph
from platform_assets.stages.compression.methods import CompressionRefusedError

if TYPE_CHECKING:
    from platform_assets.stages.compression.methods import Bench


def write(source: Path, target: Path, option: str, bench: Bench) -> None:
    """Write `target` as onnxruntime would run it on any CPU; one that does not get smaller is refused."""
    del option, bench
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # what follows is of this very CPU
        options.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    shorten(model)
    if len(serialise(model)) >= source.stat().st_size:
        raise CompressionRefusedError(f"nothing in {source.parent.name} can be folded or fused")
    write_graph(model, target)


def shorten(model: onnx.ModelProto) -> None:
    """Give every value but inputs and outputs a short name; drop names of nodes, shapes of values, notes and unused operator sets."""
    graph = model.graph
    kept = {one.name for one in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""}
    for name in [one.name for one in graph.initializer] + [name for node in graph.node for name in node.output]:
        if name not in kept and name not in names:
            names[name] = short_name(len(names) - 1)
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            node.output[place] = names.get(name, name)
    for one in graph.initializer:
        one.name = names.get(one.name, one.name)
        one.ClearField("doc_string")
    del graph.value_info[:]
    for field in ("doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    used = {node.domain if node.domain != "ai.onnx" else "" for node in graph.node} | {""}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, versions.get(domain, 1)) for domain in sorted(used))
