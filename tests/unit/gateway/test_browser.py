"""A real browser logs in at a real issuer and looks at Dagster's web UI; what it sees live comes over the websocket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import oidc_provider_mock
import pytest
from gateway_site import Behind, fill, run_gateway

from platform_assets.gateway.login import OidcClient
from resources.issuers import OidcIssuer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Behind, str]]:
    """A gateway, and a run of which it tells."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "secret").write_text("swordfish")
    people = [oidc_provider_mock.User(sub="amal", claims={"roles": ["viewer"], "tenants": ["*"]})]
    with oidc_provider_mock.run_server_in_thread(user_claims=people) as server:
        client = OidcClient(OidcIssuer(f"http://localhost:{server.server_port}"), "falaj", folder / "secret")
        with run_gateway(folder, oidc=client) as found:
            yield found, fill(found.instances["*"], secret="falcon")


@pytest.fixture(scope="module")
def page(watched: tuple[Behind, str]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def test_a_person_logs_in_sees_runs_live_and_logs_out(watched: tuple[Behind, str], page: Any) -> None:
    behind, run = watched
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 - playwright marks what it is handed
    page.goto(f"{behind.url}/runs/{run}")
    assert page.url.startswith(behind.gateway.login.oidc.issuer.url)
    page.fill("input[name=sub]", "amal")
    page.click("button")
    page.get_by_text("event says falcon").first.wait_for()  # the run's page reads its events over the websocket
    assert page.url.startswith(f"{behind.url}/runs/{run}")
    assert sockets[0].url == behind.url.replace("http", "ws") + "/graphql"
    cookie = next(found for found in page.context.cookies() if found["name"] == behind.gateway.login.cookie)
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert page.evaluate("document.cookie") == ""
    said = page.evaluate(
        "fetch('/graphql', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({query: 'mutation { reloadWorkspace { __typename } }'})}).then(reply => reply.text())"
    )
    assert "you may not reload" in said
    page.goto(f"{behind.url}/auth/")
    assert "viewer" in page.content()
    page.click("button")
    page.get_by_text("You are logged out").wait_for()
    page.goto(f"{behind.url}/runs")
    assert page.url.startswith(behind.gateway.login.oidc.issuer.url)
