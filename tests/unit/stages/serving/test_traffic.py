"""Who answers: figures, sticky shares, and what a change of traffic keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import RequestError, ServingError
from platform_assets.manifests import read_release
from platform_assets.sealing.release import Opener
from platform_assets.stages.serving.bundle import build_bundle, load_bundle
from platform_assets.stages.serving.figures import Histogram
from platform_assets.stages.serving.traffic import Route, read_state, write_state
from resources.settings import Home
from resources.testing.keys import open_releases
from resources.testing.serving import write_tiny_release

OLD, NEW, THIRD = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory) -> Route:
    folder = tmp_path_factory.mktemp("release") / "one"
    write_tiny_release(folder, model="tiny", seed=1)
    bundle = build_bundle(read_release(folder).files, path=folder, model="tiny", digest=OLD)
    return Route("tiny", {digest: replace(bundle, digest=digest) for digest in (OLD, NEW, THIRD)})


def set_traffic(route: Route, **asked: object) -> None:
    route.apply(route.checked(**{"challenger": None, "mode": "live", "percent": 0, **asked}))


def test_a_canary_gets_its_share_and_keeps_its_keys_as_it_grows(route):
    chosen = {}
    for percent in (10, 50):
        set_traffic(route, live=OLD, challenger=NEW, mode="canary", percent=percent)
        chosen[percent] = {key for key in map(str, range(20_000)) if route.choose(key).bundle.digest == NEW}
        assert abs(len(chosen[percent]) / 20_000 - percent / 100) < 0.01
    assert chosen[10] < chosen[50]


def test_a_shadow_answers_nobody(route):
    set_traffic(route, live=OLD, challenger=NEW, mode="shadow")
    assert {route.choose(str(key)).bundle.digest for key in range(1000)} == {OLD}
    assert route.shadow().bundle.digest == NEW


def test_the_way_back_stays_loaded(route):
    set_traffic(route, live=OLD)
    set_traffic(route, live=NEW)
    assert route.traffic.previous == OLD
    set_traffic(route, live=NEW, challenger=THIRD, mode="canary", percent=10)
    assert route.traffic.previous == OLD
    assert OLD in route.loaded


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"live": "d" * 64}, "'live'.*not loaded"),
        ({"live": None}, "'live'"),
        ({"live": ["x"]}, "'live'"),
        ({"live": OLD, "challenger": {}}, "'challenger'"),
        ({"live": OLD, "mode": []}, "'mode'"),
        ({"live": OLD, "mode": "canary"}, "'challenger'"),
        ({"live": OLD, "challenger": OLD, "mode": "shadow"}, "same version"),
        ({"live": OLD, "mode": "blue-green"}, "live, shadow, canary"),
        ({"live": OLD, "challenger": NEW, "mode": "canary", "percent": 101}, "0 to 100"),
        ({"live": OLD, "percent": "10"}, "0 to 100"),
    ],
)
def test_wrong_traffic_is_refused_by_field_and_changes_nothing(route, asked, said):
    before = route.traffic
    with pytest.raises(RequestError, match=said):
        set_traffic(route, **asked)
    assert route.traffic is before


def test_the_state_file_is_whole_or_named(tmp_path: Path):
    assert read_state(tmp_path / "state.json") == {}
    write_state(tmp_path / "state.json", {"tiny": {"loaded": {}}})
    assert read_state(tmp_path / "state.json") == {"tiny": {"loaded": {}}}
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ServingError, match=r"state\.json"):
        read_state(tmp_path / "state.json")


@given(st.lists(st.floats(1e-5, 50), min_size=1, max_size=200))
def test_a_quantile_is_known_to_within_its_bucket(durations):
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    middle = sorted(durations)[(len(durations) - 1) // 2] * 1000
    assert middle / 1.26 <= max(histogram.quantile_ms(0.5), 0.02) <= max(middle, 0.02) * 1.26


def load_sealed(root: Path, **how: object) -> None:
    home = Home(root / "home")
    write_tiny_release(root / "one", **how)
    digest = open_releases(home).put(root / "one")
    load_bundle(home.releases / digest, model="tiny", digest=digest, opener=Opener.of(home.keys))


def test_a_release_that_answers_otherwise_than_recorded_is_refused(tmp_path):
    with pytest.raises(ServingError, match=r"differ from the recorded ones by 0\.01"):
        load_sealed(tmp_path, model="tiny", seed=1, altered_answers=0.01)


def test_a_release_of_another_model_is_refused(tmp_path):
    with pytest.raises(ServingError, match="is a release of other, tiny was asked for"):
        load_sealed(tmp_path, model="other", seed=1)


def test_a_server_without_keys_takes_no_release(tmp_path):
    digest = write_tiny_release(tmp_path / "one", model="tiny", seed=1)
    with pytest.raises(ServingError, match="no keys to verify it with"):
        load_bundle(tmp_path / "one", model="tiny", digest=digest, opener=None)


def test_a_release_in_the_open_is_refused_as_unsigned(tmp_path):
    home = Home(tmp_path / "home")
    write_tiny_release(tmp_path / "one", model="tiny", seed=1)
    digest = open_releases(home).put(tmp_path / "one")
    with pytest.raises(ServingError, match="it is not signed"):
        load_bundle(tmp_path / "one", model="tiny", digest=digest, opener=Opener.of(home.keys))
