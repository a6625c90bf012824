"""The catalogue of the tree being loaded, read once per process. Components look up what other files declare here."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platform_assets.specs.catalogue import Catalogue, load_catalogue
from resources.home import read_sources
from resources.settings import read_settings


@lru_cache(maxsize=4)
def load_tree(root: Path) -> Catalogue:
    """Read a tree of declarations with this home's provided sources; raise SpecError with every fault."""
    return load_catalogue(root).provide(read_sources(read_settings().home))


def catalogue_of(defs_module_path: Path) -> Catalogue:
    """Return the catalogue of the tree that a component's folder lies in."""
    return load_tree(defs_module_path)
