"""Open Inference Protocol V2: translation between its requests and replies and encoded batches; REST, and what gRPC shares. No routes here.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with the binary tensor data
extension, of the other extensions the request parameter `timeout` (microseconds), and one of our own, `reasons` (explaining.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from platform_assets.errors import RequestError
from platform_assets.stages.serving.columns import MAX_ROWS, MAX_TEXT, Encoded, is_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from platform_assets.stages.serving.bundle import Bundle
    from platform_assets.stages.serving.traffic import Arm

EXTENSIONS = ["binary_tensor_data"]
TEXTS = frozenset({"categorical", "text"})
OUTPUTS = ("probabilities", "label")
_DTYPES = {name: np.dtype(kind) for name, kind in {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}.items()}  # fmt: skip
_NUMBERS = frozenset({int, float})
_BINARY_LINES = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
_PACKED_VALUES = 4096  # beyond, numpy converts a list faster than struct does
_KEPT = 256  # forms of replies and shapes of requests, a bundle


@dataclass(slots=True, eq=False)
class Wishes:
    """How a request wants its answer: names of the outputs, those of them in binary, the caller's id, a timeout, whether reasons."""

    outputs: tuple[str, ...] = OUTPUTS
    binary: tuple[str, ...] = ()
    id: str = ""
    timeout: Any = None
    reasons: bool = False

    def write(self, arm: Arm, request_id: str, found: np.ndarray, shares: list[list[float]]) -> tuple[bytes, bytes]:
        """Body and header lines of the reply; tensors are flat, row by row."""
        bundle, rows, binary = arm.bundle, len(shares), self.binary
        form = bundle.forms.get((self.outputs, binary, rows))
        if form is None:
            form = self._make_form(bundle, rows)
        values: list[Any] = [orjson.dumps(self.id) if self.id else b'"%b"' % request_id.encode()]
        blobs = []
        for output in self.outputs:
            if output == "probabilities":
                if output in binary:
                    blobs.append(found.tobytes())
                    continue
                values.append(orjson.dumps(shares[0] if rows == 1 else [share for row in shares for share in row]))
            else:
                labels = bundle.labels(found, shares)
                if output in binary:
                    blobs.append(write_texts(labels))
                    values.append(len(blobs[-1]))
                else:
                    values.append(orjson.dumps(labels))
        text = form % tuple(values)
        if not blobs:
            return text, b""
        return b"".join([text, *blobs]), _BINARY_LINES % len(text)

    def _make_form(self, bundle: Bundle, rows: int) -> bytes:
        """Reply of so many rows with a place for the id and for whatever differs from request to request; kept with the bundle."""
        listed = []
        for output in self.outputs:
            if output == "probabilities":
                opening = b'{"name":"probabilities","datatype":"FP32","shape":[%d,%d],' % (rows, len(bundle.schema.classes))
                size = b"%d" % (4 * rows * len(bundle.schema.classes))
            else:
                opening, size = b'{"name":"label","datatype":"BYTES","shape":[%d],' % rows, b"%d"
            listed.append(opening + (b'"parameters":{"binary_data_size":%b}}' % size if output in self.binary else b'"data":%b}'))
        head = b'{"model_name":%b,"model_version":%b,"id":' % (orjson.dumps(bundle.model), orjson.dumps(bundle.version))
        form = b'%b%%b,"outputs":[%b]}' % (head, b",".join(listed))
        if len(bundle.forms) >= _KEPT:
            bundle.forms.clear()
        bundle.forms[self.outputs, self.binary, rows] = form
        return form


@dataclass(slots=True, eq=False)
class Shape:
    """What the JSON of a binary request says, where packed numbers follow it and nothing else."""

    rows: int
    size: int
    wishes: Wishes


_USUAL = Wishes()


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


def read_request(body: bytes, header_length: bytes | None, *, bundle: Bundle) -> tuple[Encoded, Wishes]:
    """Return rows and wishes of a request's body. `header_length` is the header Inference-Header-Content-Length.

    A caller of binary tensors sends the same JSON again and again: looking it up costs a tenth of reading it anew.
    """
    if header_length is None:
        return read_infer(_parse(body), bundle=bundle, plain=b"true" not in body and b"false" not in body)
    if not header_length.isdigit() or int(header_length[:12]) > len(body):
        raise RequestError(f"header 'inference-header-content-length': right would be 0 to {len(body)}, the length of the body")
    length = int(header_length)
    text = body[:length]
    known = bundle.shapes.get(text)
    if known is not None and len(body) - length == known.size:
        packed = body[length:]
        _refuse_infinite(packed)
        return Encoded(known.rows, packed), known.wishes
    batch, wishes = read_infer(_parse(text), bundle=bundle, binary=memoryview(body)[length:])
    numbers = batch.numbers
    if bundle.reader.tensor_names == ("numeric",) and type(numbers) is bytes and len(numbers) == len(body) - length and not wishes.id:
        if len(bundle.shapes) >= _KEPT:
            bundle.shapes.clear()
        bundle.shapes[text] = Shape(batch.rows, len(numbers), wishes)
    return batch, wishes


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error


def read_infer(body: Any, *, bundle: Bundle, binary: memoryview | bytes = b"", plain: bool = False) -> tuple[Encoded, Wishes]:
    """Return rows and wishes of a parsed request and the binary data that came with it. RequestError names the tensor that is wrong.

    `plain`: there is no true and no false in the body, so that whatever `struct` packs as a number is one.
    """
    if type(body) is not dict or type(body.get("inputs")) is not list:
        raise RequestError("field 'inputs': right would be a list of tensors with name, datatype, shape and data")
    reader, widths = bundle.reader, bundle.reader.widths
    tensors: dict[str, np.ndarray | bytes] = {}
    rows = at = 0
    for tensor in body["inputs"]:
        name = tensor.get("name") if type(tensor) is dict else None
        if not isinstance(name, str) or name not in widths or name in tensors:
            raise RequestError(f"input {name!r}: right would be each of {', '.join(reader.tensor_names)}, once")
        count, width = _read_shape(tensor.get("shape"), name=name, width=widths[name])
        if tensors and count != rows:
            raise RequestError(f"the inputs have {sorted({rows, count})} rows; every input needs the same number")
        rows, part = count, None
        if (parameters := tensor.get("parameters")) is not None and (size := _binary_size(parameters, name)) is not None:
            part, at = binary[at : at + size], at + size
            if len(part) != size:
                raise RequestError(f"input {name!r}: binary_data_size is {size}, {len(part)} bytes are left of the body")
        tensors[name] = _read_tensor(tensor, part, name=name, shape=(count, width), plain=plain)
    if len(tensors) != len(reader.tensor_names):
        missing = next(name for name in reader.tensor_names if name not in tensors)
        raise RequestError(f"input {missing!r} is missing; the model needs {', '.join(reader.tensor_names)}")
    if at != len(binary):
        raise RequestError(f"{len(binary) - at} bytes of the body belong to no input; binary_data_size must name them all")
    batch = Encoded(rows, tensors.get("numeric"), tensors.get("categorical"), tensors.get("image"), tensors.get("text"))  # type: ignore[arg-type]
    return batch, _USUAL if len(body) == 1 else _read_wishes(body)


def _read_wishes(body: dict[str, Any]) -> Wishes:
    asked, parameters, outputs = body.get("id", ""), body.get("parameters"), body.get("outputs")
    if not isinstance(asked, str):
        raise RequestError("field 'id': right would be text")
    if parameters is not None and type(parameters) is not dict:
        raise RequestError("field 'parameters': right would be an object")
    parameters = parameters or {}
    usual = _flag(parameters, "binary_data_output", where="parameters", usual=False)
    names, binary = [], []
    for output in outputs if type(outputs) is list else [] if outputs is None else [None]:
        name = output.get("name") if type(output) is dict else None
        if name not in OUTPUTS or name in names:
            raise RequestError(f"output {name!r}: right would be {' or '.join(OUTPUTS)}, each once")
        own = (output or {}).get("parameters") or {}
        if type(own) is not dict or "classification" in own:
            raise RequestError(f"output {name!r}: of its parameters 'binary_data' is known here")
        names.append(name)
        if _flag(own, "binary_data", where=f"output {name!r}", usual=usual):
            binary.append(name)
    if not names:
        names, binary = list(OUTPUTS), list(OUTPUTS) if usual else []
    reasons = _flag(parameters, "reasons", where="parameters", usual=False)
    if reasons and binary:
        raise RequestError("parameters: reasons come as JSON; right would be no binary output beside them")
    return Wishes(tuple(names), tuple(binary), asked, parameters.get("timeout"), reasons)


def _flag(parameters: dict[str, Any], name: str, *, where: str, usual: bool) -> bool:
    value = parameters.get(name, usual)
    if type(value) is not bool:
        raise RequestError(f"{where}: {name} is {value!r}; right would be true or false")
    return value


def _binary_size(parameters: Any, name: str) -> int | None:
    if type(parameters) is not dict:
        raise RequestError(f"input {name!r}: parameters must be an object")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise RequestError(f"input {name!r}: binary_data_size is {size!r}; right would be a number of bytes")
    return size


def _read_shape(shape: Any, *, name: str, width: int) -> tuple[int, int]:
    if type(shape) is not list or len(shape) != 2 or type(shape[0]) is not int or not 0 < shape[0] <= MAX_ROWS or shape[1] != width:  # noqa: PLR2004
        raise RequestError(f"input {name!r}: shape {shape!r} found; right would be [rows, {width}] with 1 to {MAX_ROWS} rows")
    return shape[0], width


def _read_tensor(
    tensor: dict[str, Any], part: memoryview | bytes | None, *, name: str, shape: tuple[int, int], plain: bool
) -> np.ndarray | bytes:  # fmt: skip
    datatype, text = tensor.get("datatype"), name in TEXTS
    if not isinstance(datatype, str) or (datatype != "BYTES" if text else datatype not in _DTYPES):
        raise RequestError(f"input {name!r}: datatype {datatype!r} found; right would be {'BYTES' if text else 'FP32'}")
    count = shape[0] * shape[1]
    if part is not None:
        if "data" in tensor:
            raise RequestError(f"input {name!r}: it has both data and binary_data_size; right would be one of them")
        return read_texts(part, name=name, shape=shape) if text else read_numbers(part, name=name, datatype=datatype, shape=shape)
    data = tensor.get("data")
    if type(data) is not list:
        raise RequestError(f"input {name!r}: data must be a list, or binary_data_size must stand in its parameters")
    flat = [value for row in data for value in row] if data and type(data[0]) is list and all(type(row) is list for row in data) else data
    if len(flat) != count:
        raise RequestError(f"input {name!r}: {len(flat)} values found, its shape asks for {count}")
    if text:
        return _text_array(flat, name).reshape(shape)
    if name == "numeric" and count <= _PACKED_VALUES and (plain or _NUMBERS.issuperset(map(type, flat))):
        try:
            return _packer(count)(*flat)
        except (OverflowError, struct.error):
            pass  # no number, or one that no 32-bit float holds: told below
    return _number_array(flat, name).reshape(shape)


@lru_cache(maxsize=256)
def _packer(count: int) -> Callable[..., bytes]:
    return struct.Struct(f"={count}f").pack


def read_numbers(part: memoryview | bytes, *, name: str, datatype: str, shape: tuple[int, int]) -> np.ndarray | bytes:
    """Numbers of a binary tensor; packed where they came as the graph takes them."""
    dtype = _DTYPES[datatype]
    if len(part) != shape[0] * shape[1] * dtype.itemsize:
        raise RequestError(
            f"input {name!r}: {len(part)} bytes found, its shape and datatype ask for {shape[0] * shape[1] * dtype.itemsize}"
        )
    if name == "numeric" and datatype == "FP32":
        packed = bytes(part)
        _refuse_infinite(packed)
        return packed
    with np.errstate(over="ignore"):
        array = np.frombuffer(part, dtype=dtype).astype(np.float32, copy=False).reshape(shape)
    wrong = np.isinf(array) if name == "numeric" else ~np.isfinite(array)
    if wrong.any():
        raise RequestError(f"input {name!r}: a value is infinite, no number or beyond the range of a 32-bit float")
    return array


def _refuse_infinite(packed: bytes) -> None:
    infinite = np.isinf(np.frombuffer(packed, dtype=np.float32))
    if infinite[infinite.argmax()]:  # half the time of any()
        raise RequestError("input 'numeric': a value is infinite")


def read_texts(part: memoryview | bytes, *, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Texts of a binary tensor: before each its length in four bytes, little endian."""
    content, at, flat = bytes(part), 0, []
    try:
        while at < len(content):
            (length,) = struct.unpack_from("<I", content, at)
            at += 4 + length
            if at > len(content):
                raise RequestError(f"input {name!r}: a text of {length} bytes does not fit into what is left of the data")
            flat.append(content[at - length : at].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise RequestError(
            f"input {name!r}: the binary data are not texts in UTF-8, each after its length in four bytes: {error}"
        ) from error
    if len(flat) != shape[0] * shape[1]:
        raise RequestError(f"input {name!r}: {len(flat)} values found, its shape asks for {shape[0] * shape[1]}")
    return _text_array(flat, name).reshape(shape)


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


def write_texts(texts: list[str]) -> bytes:
    """Texts as binary data."""
    return b"".join([struct.pack("<I", len(encoded)) + encoded for encoded in map(str.encode, texts)])
