"""The prediction log's own form: one frame a run of a model, its tensors as they are. Other processes turn it into JSON lines.

Writing numbers as JSON costs more than answering does, so the server copies bytes and whoever reads the log pays for the names. A frame is
`FLJ1`, the lengths of its header and payload and a checksum over both (four bytes each, little endian), a JSON header, the payload. The
first frame of a version in a file describes it (`schema`); every other one is a run: who asked, rows, and at the end the probabilities.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from platform_assets.errors import ServingError
from platform_assets.specs.record_json import read_record, to_json
from platform_assets.specs.records import FeatureSchema
from platform_assets.stages.serving.columns import Encoded, RowReader, rows_of_request

_LEAD = struct.Struct("<4sIII")
_MAGIC = b"FLJ1"
PACKED, NAMED = 0, 1  # how a request's rows stand in the payload: float32 numbers, or JSON as `:predict` takes it

# What the log keeps of a request: packed numbers, a body as it came, or a function that gives the rows when they are written.
Source = bytes | Callable[[], Sequence[dict[str, Any]]]


class Logged(Protocol):
    """One answered request of a run."""

    request_id: str
    rows: int
    kind: int
    source: Source


@dataclass(slots=True, eq=False)
class Answered:
    """One run as the hot path hands it over."""

    model: str
    version: str
    digest: str
    schema: FeatureSchema
    time: float
    requests: Sequence[Logged]
    probabilities: np.ndarray
    num_rows: int
    first: int = 0  # number of its first row among all that its worker accepted


def describe(answered: Answered) -> bytes:
    """Frame that tells how the runs of a version are read."""
    header = {"model": answered.model, "version": answered.version, "digest": answered.digest, "schema": to_json(answered.schema)}
    return _frame(orjson.dumps(header), b"")


def encode(answered: Answered) -> bytes:
    """Frame of one run."""
    listed, parts = [], []
    for request in answered.requests:
        source = request.source
        part = source if type(source) is bytes else orjson.dumps({"rows": source()})  # type: ignore[operator]
        listed.append((request.request_id, request.rows, request.kind, len(part)))
        parts.append(part)
    parts.append(answered.probabilities.tobytes())
    header = {"digest": answered.digest, "time": answered.time, "first": answered.first, "requests": listed}
    return _frame(orjson.dumps(header), *parts)


def _frame(header: bytes, *payload: bytes) -> bytes:
    checksum, size = zlib.crc32(header), 0
    for part in payload:
        checksum = zlib.crc32(part, checksum)
        size += len(part)
    return b"".join((_LEAD.pack(_MAGIC, len(header), size, checksum), header, *payload))


def whole_frames(content: bytes) -> int:
    """Bytes of the whole frames at the beginning; what follows was torn by a kill."""
    end = 0
    for _, _, stop in _walk(content):
        end = stop
    return end


def rows_from(content: bytes, number: int) -> int:
    """Count the rows in whole frames that have this number or a later one."""
    headers = (orjson.loads(head) for head, _, _ in _walk(content))
    return sum(rows for header in headers if header.get("first", -1) >= number for _, rows, _, _ in header["requests"])


def _walk(content: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    at = 0
    while at + _LEAD.size <= len(content):
        magic, header, payload, checksum = _LEAD.unpack_from(content, at)
        start = at + _LEAD.size
        at = start + header + payload
        head, rest = content[start : start + header], content[start + header : at]
        if magic != _MAGIC or at > len(content) or zlib.crc32(rest, zlib.crc32(head)) != checksum:
            return
        yield head, rest, at


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a closed file, one dict a predicted row; a file that is damaged raises ServingError."""
    content = file.read_bytes()
    versions: dict[str, tuple[dict[str, Any], RowReader]] = {}
    end = 0
    for head, payload, stop in _walk(content):
        header, end = orjson.loads(head), stop
        if "schema" in header:
            versions[header["digest"]] = header, RowReader(read_record(FeatureSchema, header["schema"]), model=header["model"])
        else:
            described, reader = versions[header["digest"]]
            yield from _rows_of_run(header, payload, described=described, reader=reader)
    if end != len(content):
        raise ServingError(f"{file} is damaged at byte {end} of {len(content)}; rows after it cannot be read")


def _rows_of_run(header: dict[str, Any], payload: bytes, *, described: dict[str, Any], reader: RowReader) -> Iterator[dict[str, Any]]:
    schema = reader.schema
    total = sum(rows for _, rows, _, _ in header["requests"])
    shares = np.frombuffer(payload[-4 * total * len(schema.classes) :], dtype=np.float32).reshape(total, -1)
    best, probabilities = shares.argmax(axis=1).tolist(), shares.tolist()
    stamp = datetime.fromtimestamp(header["time"], UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    at = place = 0
    for request_id, rows, kind, length in header["requests"]:
        part = payload[at : at + length]
        at += length
        named = reader.decode(Encoded(rows, part)) if kind == PACKED else rows_of_request(orjson.loads(part))
        for row, inputs in enumerate(named):
            yield {
                "prediction_id": f"{request_id}:{row}",
                "request_id": request_id,
                "model": described["model"],
                "version": described["version"],
                "digest": header["digest"],
                "time": stamp,
                "key": inputs.pop(schema.key, None),
                "event_time": inputs.pop(schema.event_time, None),
                "inputs": inputs,
                "label": schema.classes[best[place]],
                "probabilities": probabilities[place],
            }
            place += 1
