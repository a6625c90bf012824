"""The catalogue of the tree being loaded, read once per process. Components look up what other files declare here."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from platform_assets.errors import SpecError
from platform_assets.specs.catalogue import Catalogue, read_catalogue
from platform_assets.specs.places import Place
from platform_assets.stages.governance.placing import check_places
from platform_assets.stages.governance.residency import check_residency
from resources.home import read_sources
from resources.settings import Settings, read_settings


def load_tree(root: Path, settings: Settings | None = None) -> Catalogue:
    """Read a tree of declarations with this home's provided sources; raise SpecError with every fault.

    Its data is held against where these settings (this process's when left out) place it. In a tenant's home it is the tenant's part alone.
    """
    chosen = settings or read_settings()
    return _load(root, chosen.places, chosen.tenant)


@lru_cache(maxsize=4)
def _load(root: Path, places: tuple[Place, ...], tenant: str | None) -> Catalogue:
    catalogue, faults = read_catalogue(root)
    if not faults:
        catalogue = catalogue.provide(read_sources(read_settings().home))
    faults += [*check_residency(catalogue), *check_places(catalogue, places)]
    if faults:
        raise SpecError(sorted(faults, key=lambda fault: (fault.file, fault.field)))
    return catalogue.of_tenant(tenant) if tenant is not None else catalogue


def forget_trees() -> None:
    """Read trees anew: what a home is given beside them has changed."""
    _load.cache_clear()


def catalogue_of(defs_module_path: Path) -> Catalogue:
    """Return the catalogue of the tree that a component's folder lies in."""
    return load_tree(defs_module_path)
