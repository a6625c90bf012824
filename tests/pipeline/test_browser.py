"""The web UI on the home of a finished main job, as a person sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline.tiny import DATASET, MODEL, Finished

from platform_assets import keys

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def link(finished: Finished) -> Iterator[str]:
    """The link that `falaj up` prints for the web UI."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    answer = finished.tiny.falaj("up")
    try:
        assert answer.returncode == 0, answer.stdout
        found = f"http://127.0.0.1:{finished.tiny.settings.web_port}"
        link = answer.stdout.split()[-1]
        assert link.startswith(f"{found}/auth/ticket?t=")
        yield link
        down = finished.tiny.falaj("down")
        assert down.returncode == 0
        assert "Stopped: daemon, gateway, web, server." in down.stdout
        assert finished.tiny.names() == []
    finally:
        finished.tiny.end_everything()


@pytest.fixture(scope="module")
def address(link: str) -> str:
    return link.split("/auth/", maxsplit=1)[0]


@pytest.fixture(scope="module")
def page(link: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        opened = browser.new_page(viewport={"width": 1800, "height": 1400})
        opened.set_default_timeout(PATIENCE_MS)
        opened.faults = []
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        opened.goto(link)  # logs in; every page after that comes by the session
        yield opened
        browser.close()


def test_the_lineage_shows_the_whole_life_of_the_model(page: Any, address: str) -> None:
    page.goto(f"{address}/asset-groups")
    page.goto(f"{address}/locations/falaj/asset-groups/{keys.model_group(MODEL)}/lineage")
    for state in keys.MODEL_STATES:
        page.get_by_text(state, exact=True).first.wait_for(state="attached")
    assert page.faults == []


def test_an_asset_shows_its_checks_and_what_was_found(page: Any, address: str) -> None:
    page.goto(f"{address}/assets/dataset/{DATASET}/validated?view=checks")
    for check in ("schema_matches", "values_within_ranges", "keys_are_unique"):
        page.get_by_text(check).first.wait_for(state="attached")
    page.goto(f"{address}/assets/model/{MODEL}/rollout_verdict?view=checks")
    page.get_by_text("live_version_is_proven_by_hash").first.wait_for(state="attached")
    page.get_by_text("The server answers with").first.wait_for(state="attached")
    assert page.faults == []


def test_a_verdict_shows_its_evidence(page: Any, address: str) -> None:
    page.goto(f"{address}/assets/model/{MODEL}/rollout_verdict")
    page.get_by_text("It took over from").first.wait_for(state="attached")
    assert page.faults == []


def test_the_sensors_are_listed_and_on(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}/automation")
    for sensor in (keys.DRIFT_SENSOR, keys.NEW_ROWS_SENSOR, keys.FAILURE_SENSOR):
        page.get_by_text(sensor).first.wait_for(state="attached")
    page.screenshot(path=tmp_path / "sensors.png")
    assert page.faults == []
