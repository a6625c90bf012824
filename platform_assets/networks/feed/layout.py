"""How an encoded row lies in memory: all that a step needs of it side by side, so that picking a row is one copy.

Numbers and images are float32; ids, tokens and the class take the smallest integer that holds them. Fifty columns are about 180 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from platform_assets.networks.feed.protocol import Batch
    from platform_assets.networks.preprocessing import Preprocessing

_INTEGERS = ("uint8", "int16", "int32")
_ALIGNED = 4  # bytes; every stored type divides it


@dataclass(frozen=True)
class Field:
    """One tensor of a batch: how many values a row has and how they are stored; integers are handed out as int64."""

    stored: str
    width: int

    @property
    def size_bytes(self) -> int:
        """Bytes of one row, rounded up so that the next field is aligned."""
        return -(-np.dtype(self.stored).itemsize * self.width // _ALIGNED) * _ALIGNED


@dataclass(frozen=True)
class Layout:
    """Fields of a row in the order of a batch: numeric, ids, image, where there is text its tokens, target."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, preprocessing: Preprocessing, *, classes: int) -> Layout:
        """Lay out the rows of a model."""
        ids = sum(column.size for column in preprocessing.categories)
        text = preprocessing.tokeniser
        return cls((
            Field("float32", len(preprocessing.numbers)),
            Field(smallest_integer(ids), len(preprocessing.categories)),
            Field("float32", preprocessing.image_size),
            *((Field(smallest_integer(text.size), text.width),) if text is not None else ()),
            Field(smallest_integer(classes), 1),
        ))  # fmt: skip

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(field.size_bytes for field in self.fields)

    def pack(self, arrays: tuple[NDArray[np.float32] | NDArray[np.int64] | NDArray[np.int32], ...]) -> NDArray[np.uint8]:
        """Lay arrays [n, width] in the order of a batch (the target last, [n]) side by side: uint8 [n, row_bytes]."""
        rows = len(arrays[-1])
        packed = np.zeros((rows, self.row_bytes), np.uint8)
        start = 0
        for field, array in zip(self.fields, arrays, strict=True):
            if field.width:
                stored = np.ascontiguousarray(array.reshape(rows, field.width), np.dtype(field.stored).newbyteorder("<"))
                packed[:, start : start + stored.itemsize * field.width] = stored.view(np.uint8)
            start += field.size_bytes
        return packed

    def unpack(self, records: Tensor) -> Batch:
        """Copy rows uint8 [n, row_bytes] apart into the tensors of a batch, on the device they are on."""
        parts = []
        start = 0
        for field in self.fields:
            kind = getattr(torch, field.stored)
            first = start // kind.itemsize
            part = records.view(kind)[:, first : first + field.width]
            parts.append(part.clone(memory_format=torch.contiguous_format) if kind.is_floating_point else part.long())
            start += field.size_bytes
        return (*parts[:-1], parts[-1].squeeze(1))


def smallest_integer(count: int) -> str:
    """Name the smallest type that holds 0 to count - 1."""
    return next(name for name in _INTEGERS if count - 1 <= np.iinfo(name).max)
