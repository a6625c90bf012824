"""The committed reference speaks of this checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from platform_assets import reference


def test_the_committed_pages_are_current() -> None:
    assert reference.stale_pages(reference.FOLDER) == [], f"write them anew: {reference.REMAKE}"


def test_a_stale_page_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main([]) == 0
    (tmp_path / "graph.md").write_text("old")
    assert reference.main(["--check"]) == 1
    assert "stale: graph.md;" in capsys.readouterr().err
    assert (tmp_path / "graph.md").read_text() == "old"


def test_data_provided_to_a_home_changes_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.json").write_text('{"hotel_bookings": "/data/bookings.parquet"}')
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path))
    assert reference.stale_pages(reference.FOLDER) == []
