"""The catalogue of the tree being loaded, read once per process. Components look up what other files declare here."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platform_assets.errors import SpecError
from platform_assets.specs.catalogue import Catalogue, read_catalogue
from platform_assets.stages.governance.residency import check_residency
from resources.home import read_sources
from resources.settings import read_settings


@lru_cache(maxsize=4)
def load_tree(root: Path) -> Catalogue:
    """Read a tree of declarations with this home's provided sources; raise SpecError with every fault."""
    catalogue, faults = read_catalogue(root)
    if not faults:
        catalogue = catalogue.provide(read_sources(read_settings().home))
    faults += check_residency(catalogue)
    if faults:
        raise SpecError(sorted(faults, key=lambda fault: (fault.file, fault.field)))
    return catalogue


def catalogue_of(defs_module_path: Path) -> Catalogue:
    """Return the catalogue of the tree that a component's folder lies in."""
    return load_tree(defs_module_path)
