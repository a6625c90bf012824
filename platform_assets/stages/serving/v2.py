"""Open Inference Protocol V2, REST with JSON tensors: translation between its bodies and encoded batches. No routes here.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from platform_assets.errors import RequestError
from platform_assets.stages.serving.columns import MAX_ROWS, MAX_TEXT, Encoded, is_text

if TYPE_CHECKING:
    from platform_assets.stages.serving.bundle import Bundle

_NUMERIC_TYPES = frozenset({"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
TEXTS = frozenset({"categorical", "text"})
_OUTPUTS = ("probabilities", "label")


def metadata(bundle: Bundle) -> dict[str, Any]:
    """Model metadata: names, types and shapes of tensors."""
    inputs = [
        {"name": name, "datatype": "BYTES" if name in TEXTS else "FP32", "shape": list(bundle.reader.tensor_shape(name))}
        for name in bundle.reader.tensor_names
    ]
    outputs = [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(bundle.schema.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
    return {"name": bundle.model, "versions": [bundle.version], "platform": "onnx_onnxv1", "inputs": inputs, "outputs": outputs}


def read_infer(body: Any, *, bundle: Bundle) -> tuple[Encoded, tuple[str, ...], str]:
    """Batch, names of the outputs asked for, and the caller's id. RequestError names the tensor that is wrong."""
    if type(body) is not dict or type(body.get("inputs")) is not list:
        raise RequestError("field 'inputs': right would be a list of tensors with name, datatype, shape and data")
    tensors: dict[str, np.ndarray] = {}
    for tensor in body["inputs"]:
        name = tensor.get("name") if type(tensor) is dict else None
        if not isinstance(name, str) or name not in bundle.reader.tensor_names or name in tensors:
            raise RequestError(f"input {name!r}: right would be each of {', '.join(bundle.reader.tensor_names)}, once")
        tensors[name] = _read_tensor(tensor, name=name, width=bundle.reader.tensor_shape(name)[1])
    if missing := [name for name in bundle.reader.tensor_names if name not in tensors]:
        raise RequestError(f"input {missing[0]!r} is missing; the model needs {', '.join(bundle.reader.tensor_names)}")
    counts = {len(array) for array in tensors.values()}
    if len(counts) != 1:
        raise RequestError(f"the inputs have {sorted(counts)} rows; every input needs the same number")
    batch = Encoded(counts.pop(), tensors.get("numeric"), tensors.get("categorical"), tensors.get("image"), tensors.get("text"))
    asked = body.get("id", "")
    if not isinstance(asked, str):
        raise RequestError("field 'id': right would be text")
    return batch, _read_outputs(body.get("outputs")), asked


def _read_outputs(outputs: Any) -> tuple[str, ...]:
    if outputs is None:
        return _OUTPUTS
    names = tuple(output.get("name") if type(output) is dict else None for output in outputs) if type(outputs) is list else (None,)
    for name in names:
        if name not in _OUTPUTS:
            raise RequestError(f"output {name!r}: right would be {' or '.join(_OUTPUTS)}")
    return tuple(str(name) for name in names) or _OUTPUTS


def _read_tensor(tensor: dict[str, Any], *, name: str, width: int) -> np.ndarray:
    shape, datatype, data = tensor.get("shape"), tensor.get("datatype"), tensor.get("data")
    if type(shape) is not list or len(shape) != 2 or type(shape[0]) is not int or not 0 < shape[0] <= MAX_ROWS or shape[1] != width:  # noqa: PLR2004
        raise RequestError(f"input {name!r}: shape {shape!r} found; right would be [rows, {width}] with 1 to {MAX_ROWS} rows")
    text = name in TEXTS
    if not isinstance(datatype, str) or (datatype != "BYTES" if text else datatype not in _NUMERIC_TYPES):
        raise RequestError(f"input {name!r}: datatype {datatype!r} found; right would be {'BYTES' if text else 'FP32'}")
    if type(data) is not list:
        raise RequestError(f"input {name!r}: data must be a list (binary tensors are not read here)")
    flat = [value for row in data for value in row] if data and all(type(row) is list for row in data) else data
    if len(flat) != shape[0] * width:
        raise RequestError(f"input {name!r}: {len(flat)} values found, its shape asks for {shape[0] * width}")
    return _text_array(flat, name).reshape(shape) if text else _number_array(flat, name).reshape(shape)


def _text_array(flat: list[Any], name: str) -> np.ndarray:
    if not set(map(type, flat)) <= {str}:
        raise RequestError(f"input {name!r}: every value must be text, empty where it is missing")
    if name == "text" and not all(map(is_text, flat)):
        raise RequestError(f"input {name!r}: every text must have at most {MAX_TEXT:,} characters and no half of a surrogate pair")
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array


def _number_array(flat: list[Any], name: str) -> np.ndarray:
    missing_allowed = name == "numeric"
    kinds = {int, float, type(None)} if missing_allowed else {int, float}
    if not set(map(type, flat)) <= kinds:
        raise RequestError(f"input {name!r}: every value must be a number{', or null where it is missing' if missing_allowed else ''}")
    with np.errstate(over="ignore"):
        array = np.array([np.nan if value is None else value for value in flat], dtype=np.float32)
    if np.isinf(array).any():
        raise RequestError(f"input {name!r}: a value is beyond the range of a 32-bit float")
    return array


def reply(probabilities: np.ndarray, *, bundle: Bundle, outputs: tuple[str, ...], asked: str, request_id: str) -> dict[str, Any]:
    """Body of an infer reply; tensors are flat, row by row."""
    classes = bundle.schema.classes
    made = {
        "probabilities": lambda: {"datatype": "FP32", "shape": list(probabilities.shape), "data": probabilities.ravel().tolist()},
        "label": lambda: {
            "datatype": "BYTES",
            "shape": [len(probabilities)],
            "data": [classes[best] for best in probabilities.argmax(axis=1).tolist()],
        },
    }
    return {
        "model_name": bundle.model,
        "model_version": bundle.version,
        "id": asked or request_id,
        "outputs": [{"name": name, **made[name]()} for name in outputs],
    }
