from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import RequestError
from platform_assets.identity.actions import Action
from platform_assets.identity.doors import find_door


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "/", Action.READ),
        ("GET", "/locations/falaj/asset-groups/model_digits/lineage", Action.READ),
        ("GET", "/logs/run/compute_logs/step/out", Action.READ),
        ("GET", "/download_debug/1", Action.READ),
        ("GET", "/notebook", Action.NOTEBOOK),
        ("GET", "/dagit/notebook", Action.NOTEBOOK),
        ("HEAD", "/dagit/notebook/", Action.NOTEBOOK),
        ("POST", "/report_asset_materialization/a/b", Action.REPORT),
        ("POST", "/report_asset_check/a", Action.REPORT),
        ("POST", "/report_asset_observation/a", Action.REPORT),
    ],
)
def test_each_door_has_its_action(method: str, path: str, action: Action) -> None:
    assert find_door(method, path).action is action


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/logs/../../keys/session.key"), ("GET", "/logs/./x"), ("GET", "//notebook"), ("GET", "/dagit//notebook"), ("GET", "/a\\..\\b"),
        ("GET", "/a\x00"), ("GET", "/%2e%2e/x"), ("GET", "relative"), ("GET", "/" + "a" * 5000), ("GET", "/graphql"), ("GET", "/graphql/"),
        ("POST", "/"), ("DELETE", "/logs/x"), ("PUT", "/report_asset_check/a"), ("GET", "/report_asset_materialization/a"), ("OPTIONS", "/"),
    ],
)  # fmt: skip
def test_other_ways_in_are_refused(method: str, path: str) -> None:
    with pytest.raises(RequestError):
        find_door(method, path)


@given(st.text(max_size=80))
def test_a_path_that_is_taken_has_one_reading(path: str) -> None:
    try:
        find_door("GET", path)
    except RequestError:
        return
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
    assert "//" not in path
    assert not any(character in path for character in "\\%\x00\n")
