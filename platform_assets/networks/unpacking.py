"""The one way to read what torch wrote: tensors, or objects of known classes; nothing in a file is ever called, and no file is inflated.

A file of `torch.save` is a zip of a pickle and arrays. Python's own unpickling would call what the file names; torch's restricted one
builds tensors, plain values and the classes that it is told of (`weights_only`). CWE-502, CWE-409.
"""

from __future__ import annotations

import dataclasses
import importlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from platform_assets.errors import TrainingError

_OURS = ("torch.nn.modules.", "platform_assets.networks.", "platform_assets.stages.compression.")
# What the opcodes of a spoilt file make torch say.
_TORN = (
    UnpicklingError, RuntimeError, OSError, ValueError, EOFError, LookupError, AttributeError, TypeError, OverflowError, AssertionError,
    MemoryError,
)  # fmt: skip
_KINDS = ("float32", "float64", "int64", "int32", "bool")
_ARRAYS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy._core.multiarray._reconstruct": np.empty(0).__reduce__()[0],  # makes an empty array of a kind, nothing else
}


def load_tensors(file: Path) -> Any:
    """Return what a file holds: tensors, numbers, texts, lists and mappings. TrainingError where it holds or does anything else."""
    return _load(file, [])


def load_module(file: Path, *, known: Iterable[type] = ()) -> Any:
    """Return an object of our own layers or students, or of `known` classes: a network that was cut down has no plan to build it from."""
    _check_stored(file)
    named = {f"{one.__module__}.{one.__qualname__}": one for one in known} | _ARRAYS
    kinds = [type(np.dtype(kind)) for kind in _KINDS]
    try:
        wanted = get_unsafe_globals_in_checkpoint(file)
    except _TORN as error:
        raise _refuse(file, f"it is not whole ({type(error).__name__})") from error
    return _load(file, [*kinds, *(named.get(name) or _find_class(file, name) for name in wanted)])


def _find_class(file: Path, name: str) -> Any:
    module, _, label = name.rpartition(".")
    found = None
    if f"{module}.".startswith(_OURS):
        try:
            found = getattr(importlib.import_module(module), label, None)
        except ImportError:
            found = None
    if not isinstance(found, type) or not (issubclass(found, nn.Module) or dataclasses.is_dataclass(found)):
        raise _refuse(file, f"it names {name}, which is no layer or student")
    return found


def _load(file: Path, classes: list[Any]) -> Any:
    _check_stored(file)
    try:
        with safe_globals(classes):
            return torch.load(file, map_location="cpu", weights_only=True)
    except _TORN as error:
        raise _refuse(file, f"torch read it as no plain weights ({type(error).__name__})") from error


def _check_stored(file: Path) -> None:
    """Refuse what would grow when read: torch stores its members as they are, so they are never more than the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _refuse(file, "it is no file of torch.save") from error
    if size > file.stat().st_size:
        raise _refuse(file, f"it has {file.stat().st_size:,} bytes and would unpack to {size:,}")


def _refuse(file: Path, why: str) -> TrainingError:
    return TrainingError(f"{file} was not read: {why}; restore it, or remove it and what wrote it writes it again")
