"""Named columns of a request to the arrays a graph takes, and back. Every fault names the field and the row.

Optimistic: a whole request is converted at once, and only where that fails are its values looked at one by one.
"""

from __future__ import annotations

import difflib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np

from platform_assets.errors import RequestError
from platform_assets.specs.records import Feature, FeatureSchema

MAX_ROWS = 10_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - times are naive UTC everywhere
_DAY = timedelta(days=1)
_NUMBERS = frozenset({int, float})
MAX_TEXT = 100_000  # characters: a graph cuts 1 MB of text a second and more into word pieces, others wait meanwhile
_SHOWN = 40
_PACKED_ROWS = 64  # beyond, numpy converts faster than struct does
_NAMES = {str: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object", type(None): "null"}
_NUMBER_WANTED, _TEXT_WANTED = "a number or null", "text, true, false or null"
_TIME_WANTED = "an ISO 8601 time such as '2016-07-01T00:00:00', or null"


@dataclass(slots=True, eq=False)
class Encoded:
    """Arrays of some rows, None where a graph has none.

    numbers float32 [rows, n], or the same packed as bytes; categorical object [rows, n], image float32 [rows, size], text object [rows, n].
    """

    rows: int
    numbers: np.ndarray | bytes | None
    categorical: np.ndarray | None = None
    image: np.ndarray | None = None
    text: np.ndarray | None = None

    @property
    def numeric(self) -> np.ndarray | None:
        """Numbers as an array."""
        numbers = self.numbers
        return np.frombuffer(numbers, dtype=np.float32).reshape(self.rows, -1) if type(numbers) is bytes else numbers  # type: ignore[return-value]

    def tensors(self) -> dict[str, np.ndarray]:
        """What a session takes."""
        named = {} if self.numbers is None else {"numeric": self.numeric}
        if self.categorical is not None:
            named["categorical"] = self.categorical
        if self.image is not None:
            named["image"] = self.image
        if self.text is not None:
            named["text"] = self.text
        return named  # type: ignore[return-value]

    def slice(self, start: int, stop: int) -> Encoded:
        """Rows from `start` to before `stop`."""
        if start == 0 and stop >= self.rows:
            return self
        cut = {name: array[start:stop] for name, array in self.tensors().items()}
        return Encoded(min(stop, self.rows) - start, cut.get("numeric"), cut.get("categorical"), cut.get("image"), cut.get("text"))


def stack(parts: Sequence[Encoded]) -> Encoded:
    """One batch out of several requests for the same graph."""
    if len(parts) == 1:
        return parts[0]
    rows = sum([part.rows for part in parts])
    packed = [part.numbers for part in parts if type(part.numbers) is bytes]
    return Encoded(
        rows,
        b"".join(packed) if len(packed) == len(parts) else _join([part.numeric for part in parts]),
        _join([part.categorical for part in parts]),
        _join([part.image for part in parts]),
        _join([part.text for part in parts]),
    )


def _join(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    if arrays[0] is None:
        return None
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def days_since_epoch(text: str) -> float:
    """Days from 1970-01-01 UTC of an ISO 8601 time; a zone is honoured, without one it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) / _DAY


def as_time(days: float) -> str:
    """Inverse of `days_since_epoch`, to the second."""
    return (_EPOCH + timedelta(seconds=round(days * 86400))).isoformat()


def _logged_time(days: float) -> str | float:
    try:
        return as_time(days)
    except OverflowError:  # a tensor may hold any number; the log shows it as it came
        return days


class RowReader:
    """Reads rows of one model's schema."""

    def __init__(self, schema: FeatureSchema, *, model: str) -> None:
        self.schema = schema
        self.model = model
        numbers = schema.of_kind("numeric", "date")
        self._numbers = tuple(feature.name for feature in numbers)
        self._dates = tuple(at for at, feature in enumerate(numbers) if feature.kind == "date")
        packed = len(self._numbers) > 1 and not self._dates
        self._pick = itemgetter(*self._numbers) if packed else None
        self._pack = struct.Struct(f"={len(self._numbers)}f").pack
        self._categories = tuple(feature.name for feature in schema.of_kind("category"))
        self._images = schema.of_kind("image")
        self._texts = tuple(feature.name for feature in schema.of_kind("text"))
        entities = {feature.entity for feature in schema.features}
        widths = {
            "numeric": len(self._numbers), "categorical": len(self._categories), "image": sum(f.size for f in self._images),
            "text": len(self._texts),
        }  # fmt: skip
        self.widths = {name: width for name, width in widths.items() if width}  # inputs that the graph of this schema has
        self.tensor_names = tuple(self.widths)
        self.known = frozenset({feature.name for feature in schema.features} | entities | {schema.key, schema.event_time})
        self._feature_names = frozenset(feature.name for feature in schema.features)

    def tensor_shape(self, name: str) -> tuple[int, int]:
        """Shape of an input; -1 stands for any number of rows."""
        return (-1, self.widths[name])

    def encode(self, rows: Sequence[dict[str, Any]]) -> Encoded:
        """Convert rows; a wrong one raises RequestError that names field and row."""
        try:
            encoded = self._convert(rows)
        except (TypeError, ValueError, AttributeError, OverflowError):
            encoded = None
        if encoded is None:
            self._find_fault(rows)
            raise RequestError(f"rows of {self.model} could not be read; every value must be a JSON value of its column's type")
        return encoded

    def restrict(self, rows: Sequence[dict[str, Any]], *, to_known_beside: RowReader) -> list[dict[str, Any]]:
        """Rows without columns that only the other schema knows: what one version accepts must not fail because another answers."""
        foreign = to_known_beside.known - self.known
        return [{name: value for name, value in row.items() if name not in foreign} for row in rows] if foreign else list(rows)

    def _convert(self, rows: Sequence[dict[str, Any]]) -> Encoded | None:
        known = self.known
        for row in rows:
            if not row.keys() <= known or not self._is_named_right(row):
                return None
        numeric: np.ndarray | bytes | None = None
        categorical = image = text = None
        if self._numbers and (numeric := self._numeric(rows)) is None:
            return None
        if self._categories and (categorical := self._categorical(rows)) is None:
            return None
        if self._images and (image := self._image(rows)) is None:
            return None
        if self._texts and (text := self._text(rows)) is None:
            return None
        return Encoded(len(rows), numeric, categorical, image, text)

    def _is_named_right(self, row: Mapping[str, Any]) -> bool:
        """Key and event time end in the log, whose readers rely on their types."""
        schema = self.schema
        return _is_key(row.get(schema.key)) and (schema.event_time in self._feature_names or _is_time(row.get(schema.event_time)))

    def _numeric(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | bytes | None:
        names = self._numbers
        if self._pick is not None and len(rows) <= _PACKED_ROWS:
            try:
                picked = [self._pick(row) for row in rows]
                if all(_NUMBERS.issuperset(map(type, values)) for values in picked):
                    return b"".join([self._pack(*values) for values in picked])
            except (KeyError, OverflowError, struct.error):
                pass  # a value that is missing or wrong: looked at below
        flat = [row.get(name) for row in rows for name in names]
        for at in self._dates:
            for place in range(at, len(flat), len(names)):
                value = flat[place]
                if value is not None:
                    flat[place] = days_since_epoch(value)
        kinds = set(map(type, flat))
        if type(None) in kinds:
            kinds.discard(type(None))
            flat = [np.nan if value is None else value for value in flat]
        if not kinds <= _NUMBERS:
            return None
        return _finite(flat, (len(rows), len(names)))

    def _categorical(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        names = self._categories
        flat = [row.get(name) for row in rows for name in names]
        kinds = set(map(type, flat))
        if kinds - {str}:
            if not kinds <= {str, bool, type(None)}:
                return None
            flat = [value if type(value) is str else "" if value is None else ("true" if value else "false") for value in flat]
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array.reshape(len(rows), len(names))

    def _image(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        flat: list[Any] = []
        for row in rows:
            for feature in self._images:
                pixels = row.get(feature.name)
                if type(pixels) is not list or len(pixels) != feature.size:
                    return None
                flat += pixels
        if not set(map(type, flat)) <= _NUMBERS:
            return None
        return _finite(flat, (len(rows), len(flat) // len(rows)))

    def _text(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        flat = [row.get(name) for row in rows for name in self._texts]
        flat = ["" if value is None else value for value in flat]
        if not all(map(is_text, flat)):
            return None
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array.reshape(len(rows), len(self._texts))

    def decode(self, batch: Encoded) -> list[dict[str, Any]]:
        """Rows of named columns of an encoded batch, as the log keeps them."""
        rows: list[dict[str, Any]] = [{} for _ in range(batch.rows)]
        numbers = batch.numeric.tolist() if batch.numeric is not None else []
        for at, row in enumerate(rows):
            for place, name in enumerate(self._numbers if numbers else ()):
                value = numbers[at][place]
                row[name] = None if math.isnan(value) else _logged_time(value) if place in self._dates else value
            for place, name in enumerate(self._categories if batch.categorical is not None else ()):
                row[name] = batch.categorical[at, place] or None  # type: ignore[index]
            for place, name in enumerate(self._texts if batch.text is not None else ()):
                row[name] = batch.text[at, place] or None  # type: ignore[index]
            start = 0
            for feature in self._images:
                row[feature.name] = batch.image[at, start : start + feature.size].tolist()  # type: ignore[index]
                start += feature.size
        return rows

    def _find_fault(self, rows: Sequence[Any]) -> None:
        """Raise for the first wrong value, in words."""
        features = {feature.name: feature for feature in self.schema.features}
        for at, row in enumerate(rows):
            if type(row) is not dict:
                raise RequestError(f"row {at}: found {_show(row)}; an object of column names and values would be right")
            for name, value in row.items():
                if name not in self.known:
                    raise RequestError(f"field {name!r}, row {at}: {self.model} has no such column; {_nearest(name, self.known)}")
                wanted = _wanted(features[name], value) if name in features else self._wanted_beside(name, value)
                if wanted:
                    raise RequestError(f"field {name!r}, row {at}: found {_show(value)}; right would be {wanted}")
            for feature in self._images:
                if row.get(feature.name) is None:
                    raise RequestError(f"field {feature.name!r}, row {at}: found nothing; right would be a list of {feature.size} numbers")

    def _wanted_beside(self, name: str, value: Any) -> str:
        if name == self.schema.event_time and not _is_time(value):
            return _TIME_WANTED
        return "" if name != self.schema.key or _is_key(value) else "text, an integer or null"


def rows_from_columns(columns: Any) -> list[dict[str, Any]]:
    """Rows of `{"columns": {name: [values]}}`; columns of unequal length raise RequestError."""
    if type(columns) is not dict or not columns:
        raise RequestError(f"field 'columns': found {_show(columns)}; right would be an object of column names and lists of values")
    lengths = {}
    for name, values in columns.items():
        if type(values) is not list:
            raise RequestError(f"field {name!r}: found {_show(values)}; right would be a list with one value a row")
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        name, other = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise RequestError(
            f"field {name!r} has {lengths[name]} values, field {other!r} has {lengths[other]}; every column needs one value a row"
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def rows_of_request(body: Any) -> list[dict[str, Any]]:
    """Rows of a parsed `:predict` body, in either of its two forms."""
    if type(body) is not dict or ("rows" in body) == ("columns" in body) or len(body) != 1:
        found = f"the fields {sorted(body)}" if type(body) is dict else _show(body)
        raise RequestError(f"the body has {found}; right would be an object with exactly one field, 'rows' or 'columns'")
    rows = body["rows"] if "rows" in body else rows_from_columns(body["columns"])
    if type(rows) is not list or not rows:
        raise RequestError(f"field 'rows': found {_show(rows)}; right would be a list of at least one row")
    if len(rows) > MAX_ROWS:
        raise RequestError(f"the request holds {len(rows)} rows; at most {MAX_ROWS} go into one, send several")
    return rows


def _finite(flat: list[Any], shape: tuple[int, int]) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        array = np.array(flat, dtype=np.float32)
    return None if np.isinf(array).any() else array.reshape(shape)


def is_text(value: Any) -> bool:
    """Tell whether a graph can take it: no half of a surrogate pair, which has no bytes in UTF-8."""
    return type(value) is str and len(value) <= MAX_TEXT and (value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value))


def _is_key(value: Any) -> bool:
    return value is None or type(value) is str or type(value) is int


def _is_time(value: Any) -> bool:
    if value is None:
        return True
    try:
        days_since_epoch(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _wanted(feature: Feature, value: Any) -> str:
    """What would have been right for this feature, or nothing where the value is."""
    if feature.kind == "image":
        whole = type(value) is list and len(value) == feature.size and all(type(pixel) in _NUMBERS and _fits(pixel) for pixel in value)
        return "" if whole else f"a list of {feature.size} numbers"
    if feature.kind == "text":
        return "" if value is None or is_text(value) else f"text of at most {MAX_TEXT:,} characters, or null"
    if feature.kind == "category":
        return "" if value is None or type(value) in (str, bool) else _TEXT_WANTED
    if feature.kind == "date":
        return "" if _is_time(value) else _TIME_WANTED
    if value is not None and type(value) not in _NUMBERS:
        return _NUMBER_WANTED
    return "" if value is None or _fits(value) else "a number within the range of a 32-bit float"


def _fits(value: float) -> bool:
    return abs(value) <= float(np.finfo(np.float32).max)


def _nearest(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def _show(value: Any) -> str:
    kind = _NAMES.get(type(value), type(value).__name__)
    if type(value) in (dict, type(None), bool):
        return kind if value is None or type(value) is dict else f"{kind} {str(value).lower()}"
    if type(value) is list:
        return f"a list of {len(value)}"
    text = repr(value)
    return f"{kind} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"
