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
    (tmp_path / "reference" / "graph.md").write_text("old")
    assert reference.main(["--check"]) == 1
    assert "stale: reference/graph.md;" in capsys.readouterr().err
    assert (tmp_path / "reference" / "graph.md").read_text() == "old"


def test_data_provided_to_a_home_changes_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources.json").write_text('{"hotel_bookings": "/data/bookings.parquet"}')
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path))
    assert reference.stale_pages(reference.FOLDER) == []


def test_the_views_show_what_stands_in_the_tree() -> None:
    pages = reference.render_pages()
    assert "hotel_cancellations -->|predicts is_canceled|" in pages["explanation/view-business.md"]
    assert "| hotel_bookings_simulated |" in pages["explanation/view-data.md"]
    assert "`platform_assets/stages/serving`" in pages["explanation/view-application.md"]
    technology = pages["explanation/view-technology.md"]
    for link in (
        "daemon -->|5432| PostgreSQL",
        "web -->|4000| code",
        "runs_and_steps -->|6443| Kubernetes_API",
        "web -->|5432| PostgreSQL",
    ):
        assert link in technology
    assert "inference -->|5432| PostgreSQL" not in technology
