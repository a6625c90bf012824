"""Areas of the benchmark suite, and their parts."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from platform_assets.errors import FalajError
from platform_assets.main_job.bench import suite
from platform_assets.main_job.bench.core import describe_row

QUIET = Console(file=io.StringIO())


@pytest.fixture
def parts(monkeypatch):
    """An area of two parts, each with a row of its name."""

    def load(name):
        row = describe_row(name.rpartition(".")[2], value=1.0, unit="s")
        return SimpleNamespace(measure=lambda *, quick, console: [row])

    monkeypatch.setattr(suite, "AREAS", {"area": ("first", "second")})
    monkeypatch.setattr(suite, "import_module", load)


def test_an_area_is_all_its_parts_and_a_part_is_run_alone(parts):
    whole = suite.run_area("area", quick=False, console=QUIET)
    assert [row["what"] for row in whole["rows"]] == ["first", "second"]
    assert whole["command"] == "falaj bench area"
    alone = suite.run_area("area", part="second", quick=True, console=QUIET)
    assert [row["what"] for row in alone["rows"]] == ["second"]
    assert alone["command"] == "falaj bench area --part second --quick"


def test_what_is_not_there_is_named_with_what_is(parts):
    with pytest.raises(FalajError, match=r"--part 'third': there is no such part; this area has: first, second"):
        suite.run_area("area", part="third", quick=False, console=QUIET)
    with pytest.raises(FalajError, match="this version has: area"):
        suite.run_area("other", quick=False, console=QUIET)
