"""Images that take wheels, built of this commit with pip: minutes, and gigabytes while they are built. `make images-check` names this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from podman import Podman, need_podman, open_way

BUILD_SECONDS = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's first fixture builds its image; a machine that is busy takes minutes for it."""
    for item in items:
        item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    need_podman()
    return Podman(tmp_path_factory.mktemp("podman"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that containers may be given."""
    open_way(tmp_path)
    return tmp_path
