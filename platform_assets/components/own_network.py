"""The source of a user's own network: a class that was changed is another network, under the same import path."""

from __future__ import annotations

import hashlib
from importlib.machinery import PathFinder
from pathlib import Path


def digest_source(module: str | None) -> str | None:
    """Return the SHA-256 of the file that `package.module:Class` stands in; None for no path, or where no file is found.

    Nothing is imported: a network's package may load torch. What that file imports is not looked at.
    """
    if module is None:
        return None
    places, found = None, None
    names = module.partition(":")[0].split(".")
    for depth in range(len(names)):
        found = PathFinder.find_spec(".".join(names[: depth + 1]), places)
        if found is None:
            return None
        places = found.submodule_search_locations
    path = Path(found.origin) if found is not None and found.origin else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else None
