"""Sessions: how they begin, what they are good for, how they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest
from gateway_site import Behind, run_gateway

from platform_assets.gateway.login import OidcClient, safe_next
from platform_assets.identity.principal import Principal
from platform_assets.identity.sessions import Sealer, seal_session
from resources.issuers import OidcIssuer

RELOAD = {"query": "mutation { reloadWorkspace { __typename } }"}
USERS = (
    oidc_provider_mock.User(sub="amal", claims={"roles": ["viewer"], "tenants": ["*"]}),
    oidc_provider_mock.User(sub="nobody", claims={}),
)


@pytest.fixture
def browser(behind: Behind) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=behind.url, timeout=30) as client:
        yield client


def test_the_link_logs_in_once(behind: Behind, browser: httpx.Client) -> None:
    link = behind.ticket("operator")
    reply = browser.get(link)
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    cookie = reply.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Path=/"))
    assert browser.get("/server_info").status_code == 200
    assert "operator" in browser.get("/auth/").text
    assert behind.audited("login")[-1]["detail"]["roles"] == ["operator"]
    with httpx.Client() as other:
        again = other.get(link)
        assert again.status_code == 401
        assert "used already" in again.text
        assert "set-cookie" not in again.headers


def test_a_token_for_programs_is_no_link_and_a_link_no_token(behind: Behind, browser: httpx.Client) -> None:
    assert browser.get(f"/auth/ticket?t={behind.token('admin')}").status_code == 401
    ticket = behind.token("admin", audience="falaj-login")
    assert browser.get("/server_info", headers={"Authorization": f"Bearer {ticket}"}).status_code == 401
    predicting = behind.token("admin", audience="falaj-serving")
    assert browser.get("/server_info", headers={"Authorization": f"Bearer {predicting}"}).status_code == 401


def test_a_link_is_good_for_its_time_and_in_its_own_home(behind: Behind, browser: httpx.Client) -> None:
    from resources.tokens import leave_ticket

    late = leave_ticket(behind.keys, roles=["admin"], tenants=["*"], subject="amal", seconds=-60)
    for code in (late, "", "../../tokens.key.pem", "x" * 5000):
        assert browser.get("/auth/ticket", params={"t": code}).status_code == 401
    assert not browser.cookies
    assert list((behind.keys / "tickets").iterdir()) == []


def test_a_page_of_another_site_changes_nothing_with_the_session(behind: Behind, browser: httpx.Client) -> None:
    browser.get(behind.ticket("admin"))
    for headers in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"{behind.url}.evil.example"}):
        assert browser.post("/graphql", json=RELOAD, headers=headers).status_code == 403
    assert browser.post("/graphql", json=RELOAD, headers={"Origin": behind.url}).status_code == 200


def test_logging_out_ends_every_copy_of_the_session_for_good(behind: Behind, browser: httpx.Client) -> None:
    browser.get(behind.ticket("viewer"))
    stolen = dict(browser.cookies)
    assert browser.post("/auth/logout", headers={"Origin": behind.url}).status_code == 200
    assert not browser.cookies
    with httpx.Client(base_url=behind.url, cookies=stolen) as thief:
        assert thief.get("/server_info").status_code == 401
    from resources.once import UsedNames

    session = behind.audited("logout")[-1]["detail"]["session"]
    assert session in UsedNames(behind.keys.parent / "used.sqlite")  # as a gateway that starts anew reads it


@pytest.mark.parametrize("change", ["other key", "other purpose", "expired", "flipped", "none", "junk"])
def test_a_cookie_that_is_not_ours_is_none(behind: Behind, change: str) -> None:
    who, now = Principal("amal", "falaj", frozenset({"admin"}), frozenset({"*"}), 0), time.time()
    good, _ = seal_session(Sealer(b"k" * 32), who, now=now)
    bad = {
        "other key": seal_session(Sealer(b"x" * 32), who, now=now)[0],
        "other purpose": Sealer(b"k" * 32).seal(
            "login", {"sid": "1", "sub": "amal", "idp": "falaj", "roles": ["admin"], "tenants": ["*"]}, expires=now + 60
        ),
        "expired": seal_session(Sealer(b"k" * 32), who, now=now - 10 * 3600)[0],
        "flipped": good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:],
        "none": "eyJhbGciOiJub25lIn0." + good.split(".")[1] + ".",
        "junk": "x" * 3000,
    }[change]
    with httpx.Client(base_url=behind.url, cookies={behind.gateway.login.cookie: bad}) as client:
        assert client.get("/server_info").status_code == 401


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        ("/runs?a=1", "/runs?a=1"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("", "/"),
    ],
)
def test_a_login_goes_on_to_a_page_of_this_gateway_alone(asked: str, goes: str) -> None:
    assert safe_next(asked) == goes


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with oidc_provider_mock.run_server_in_thread(user_claims=USERS) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def by_oidc(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("oidc")
    secret = folder / "secret"
    secret.write_text("swordfish\n")
    with run_gateway(folder, oidc=OidcClient(OidcIssuer(provider), "falaj", secret)) as found:
        yield found


def log_in(client: httpx.Client, behind: Behind, subject: str) -> httpx.Response:
    """Walk through the code flow as a browser does; return the callback's answer."""
    begun = client.get(f"{behind.url}/auth/login", params={"next": "/runs"})
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = client.post(begun.headers["location"], data={"sub": subject})
    return client.get(back.headers["location"])


def test_a_person_of_the_issuer_gets_the_roles_of_the_claims(by_oidc: Behind) -> None:
    with httpx.Client(base_url=by_oidc.url, timeout=30) as client:
        reply = log_in(client, by_oidc, "amal")
        assert (reply.status_code, reply.headers["location"]) == (303, "/runs")
        assert client.get("/server_info").status_code == 200
        assert client.post("/graphql", json=RELOAD, headers={"Origin": by_oidc.url}).status_code == 403
    with httpx.Client(base_url=by_oidc.url, timeout=30) as client:
        log_in(client, by_oidc, "nobody")
        assert client.get("/server_info").status_code == 403


def test_a_callback_is_good_once_and_in_the_browser_that_began_it(by_oidc: Behind) -> None:
    with httpx.Client(timeout=30) as client, httpx.Client(timeout=30) as other:
        begun = client.get(f"{by_oidc.url}/auth/login")
        back = client.post(begun.headers["location"], data={"sub": "amal"}).headers["location"]
        assert other.get(back).status_code == 401
        cookies = dict(client.cookies)
        assert client.get(back).status_code == 303
        assert httpx.get(back, cookies=cookies).status_code == 401
        assert client.get(f"{by_oidc.url}/auth/callback?state=x&code=y").status_code == 401
    by_oidc.forgive()


def test_tokens_and_links_of_the_local_issuer_are_nothing_where_an_issuer_is_set(by_oidc: Behind) -> None:
    with by_oidc.client("admin") as client:
        reply = client.get("/server_info")
        assert (reply.status_code, "issuer" in reply.text) == (401, True)
        assert client.get(by_oidc.ticket("admin")).status_code == 401
    by_oidc.forgive()


def test_an_id_token_is_a_program_s_token_only_for_the_audience_that_was_set(by_oidc: Behind, provider: str) -> None:
    def id_token(client_id: str) -> Any:
        asked = {"client_id": client_id, "redirect_uri": "http://localhost/cb", "response_type": "code", "scope": "openid", "state": "s"}
        back = httpx.post(f"{provider}/oauth2/authorize", params=asked, data={"sub": "amal"})
        code = parse_qs(urlsplit(back.headers["location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": "http://localhost/cb", "client_id": client_id}
        return httpx.post(f"{provider}/oauth2/token", data={**form, "client_secret": "x"}).json()["id_token"]

    for client_id, status in (("falaj-gateway", 200), ("another-client", 401)):
        headers = {"Authorization": f"Bearer {id_token(client_id)}"}
        assert httpx.get(f"{by_oidc.url}/server_info", headers=headers).status_code == status
    by_oidc.forgive()


def test_an_issuer_that_is_not_there_is_named_and_nobody_gets_in(tmp_path: Any) -> None:
    import asyncio

    from platform_assets.errors import AccessError

    issuer = OidcIssuer("http://127.0.0.1:9")
    with pytest.raises(AccessError, match=r"did not answer at http://127\.0\.0\.1:9"):
        asyncio.run(issuer.metadata())
