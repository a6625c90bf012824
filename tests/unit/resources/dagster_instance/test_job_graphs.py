"""Jobs whose assets are found by key have the assets and checks that Dagster's own way of finding gives them."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.job import asset_job
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.tiny import TinyHome

from platform_assets.definitions import load_defs
from resources.dagster_instance.job_graphs import _subset, _subset_by_key, find_assets_by_key

NAMES = [f"a{number}" for number in range(8)]


def one_asset(name: str, deps: list[str], checks: int) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=deps, check_specs=[dg.AssetCheckSpec(f"c{number}", asset=name) for number in range(checks)])
    def made():  # type: ignore[no-untyped-def]
        pass

    return made


def many_assets(name: str, names: list[str], deps: list[str], *, can_subset: bool) -> dg.AssetsDefinition:
    specs = [dg.AssetSpec(one, deps=deps, skippable=can_subset) for one in names]

    @dg.multi_asset(name=name, specs=specs, can_subset=can_subset, check_specs=[dg.AssetCheckSpec("whole", asset=names[0])])
    def made():  # type: ignore[no-untyped-def]
        pass

    return made


def lone_check(asset: str, name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name)
    def held() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return held


@st.composite
def graphs(draw: st.DrawFn) -> list[dg.AssetsDefinition]:
    """Assets in order of their dependencies: alone, several of one function, and checks of a function of their own."""
    made: list[dg.AssetsDefinition] = []
    left, before = list(NAMES), list[str]()
    while left:
        count = draw(st.sampled_from([1, 1, 2, 3]))
        names, left = left[:count], left[count:]
        deps = draw(st.lists(st.sampled_from(before), unique=True, max_size=2)) if before else []
        if len(names) == 1:
            made.append(one_asset(names[0], deps, draw(st.integers(0, 2))))
        else:
            made.append(many_assets(f"m{len(made)}", names, deps, can_subset=draw(st.booleans())))
        before += names
    made += [lone_check(name, "alone") for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))]
    return made


def described(graph: AssetGraph, selection: dg.AssetSelection) -> Any:
    """What a job of this selection has; or by which word it is refused."""
    try:
        found = asset_job.get_asset_graph_for_job(graph, selection)
    except dg.DagsterInvalidSubsetError as error:
        return type(error)
    nodes = {node.key: (node.is_executable, node.parent_keys, node.check_keys) for node in found.asset_nodes}
    return nodes, set(found.asset_check_keys), {frozenset(ad.keys | ad.check_keys) for ad in found.assets_defs}


@given(graphs(), st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.booleans(), st.booleans()), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_job_has_what_dagster_gives_it(made: list[dg.AssetsDefinition], wanted: list[tuple[set[str], bool, bool]]) -> None:
    graph = AssetGraph.from_assets(made)
    selections = []
    for names, upstream, bare in wanted:
        chosen = dg.AssetSelection.assets(*names)
        chosen = chosen.upstream() if upstream else chosen
        selections.append(chosen.without_checks() if bare else chosen)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asset_job, "_subset_assets_defs", _subset)
        theirs = [described(graph, one) for one in selections]
        patched.setattr(asset_job, "_subset_assets_defs", _subset_by_key)
        assert [described(graph, one) for one in selections] == theirs


def test_a_location_is_the_same_to_its_last_byte(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(how: Any) -> str:
        definitions = load_defs(TinyHome(tmp_path).parts)
        monkeypatch.setattr(asset_job, "_subset_assets_defs", how)
        return serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))

    assert snapshot(_subset_by_key) == snapshot(_subset)


def test_finding_by_key_is_what_the_location_does() -> None:
    find_assets_by_key()
    assert asset_job._subset_assets_defs is _subset_by_key
