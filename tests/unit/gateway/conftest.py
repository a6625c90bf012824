from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway_site import Behind, run_gateway


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with run_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def behind(shared: Behind) -> Behind:
    shared.forgive()
    return shared
