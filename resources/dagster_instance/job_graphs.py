"""The assets of a job found by their keys: Dagster looks through all of a location's assets for each of its jobs.

With 200 models those are 800 jobs and 3,800 assets, three million looks: a third of what loading such a location cost. The rules by which
a job's assets are chosen stay Dagster's own; they are given those that a selection touches, since they leave out all others.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from dagster._core.definitions.assets.job import asset_job

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from dagster import AssetCheckKey, AssetKey, AssetsDefinition

_RULES = "_subset_assets_defs"
_subset = getattr(asset_job, _RULES)


class _ByKey:
    """Definitions by the key of each asset that they make or check."""

    def __init__(self, definitions: Iterable[AssetsDefinition]) -> None:
        self.definitions = definitions
        self._found: defaultdict[AssetKey, set[AssetsDefinition]] = defaultdict(set)
        for one in definitions:
            for key in (*one.keys, *(check.asset_key for check in one.check_keys)):
                self._found[key].add(one)

    def touched(self, keys: Iterable[AssetKey]) -> set[AssetsDefinition]:
        """Return the definitions that make or check one of these assets."""
        return {one for key in keys for one in self._found.get(key, ())}


class _Rest(list[Any]):
    """What a selection left out: the parts of definitions that it cut, and, not listed, all that it did not touch."""

    def __init__(self, parts: Iterable[AssetsDefinition], *, of: _ByKey, but: AbstractSet[AssetsDefinition]) -> None:
        super().__init__(parts)
        self.of, self.but = of, but


class _Finder:
    """Dagster's rules, given what a selection touches. It keeps the newest graph's keys: one job is asked for after the other."""

    def __init__(self) -> None:
        self._newest = _ByKey(())

    def __call__(
        self,
        assets: Iterable[AssetsDefinition],
        selected_asset_keys: AbstractSet[AssetKey],
        selected_asset_check_keys: AbstractSet[AssetCheckKey] | None,
        *,
        allow_extraneous_asset_keys: bool = False,
    ) -> tuple[Iterable[AssetsDefinition], Iterable[AssetsDefinition]]:
        """Return what is chosen, and what is left out, which is of use to the next call alone: the one for the neighbours."""
        keys = {*selected_asset_keys, *(check.asset_key for check in selected_asset_check_keys or ())}
        if isinstance(assets, _Rest):
            by_key, given = assets.of, [*assets, *(assets.of.touched(keys) - assets.but)]
        else:
            by_key = self._newest if self._newest.definitions is assets else _ByKey(assets)
            self._newest, given = by_key, list(by_key.touched(keys))
        chosen, rest = _subset(given, selected_asset_keys, selected_asset_check_keys, allow_extraneous_asset_keys)
        return chosen, _Rest(rest, of=by_key, but=set(given))


_subset_by_key = _Finder()


def find_assets_by_key() -> None:
    """Have this process's jobs find their assets so; once or more often is the same."""
    setattr(asset_job, _RULES, _subset_by_key)
