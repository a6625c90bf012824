"""Tokens of an OIDC issuer at a real inference server, and its keys as they change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm
from serving_process import MODEL, Server

from platform_assets.errors import AccessError, ServingError
from platform_assets.identity.tokens import LEEWAY_SECONDS
from platform_assets.stages.serving.oidc import OidcIssuer
from resources.serving import connect
from resources.testing.serving import TINY_ROW


class Provider:
    """An issuer on loopback; `keys` by id."""

    def __init__(self) -> None:
        self.keys = {"a": ed25519.Ed25519PrivateKey.generate()}
        self.asked, self.name = 0, ""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                found = {"issuer": provider.name or provider.url, "jwks_uri": f"{provider.url}/keys"}
                if self.path == "/keys":
                    found = {
                        "keys": [
                            {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name} for name, key in provider.keys.items()
                        ]
                    }
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, *, key: str = "a", **more: object) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": "falaj-serving", "sub": "amal", "iat": now, "exp": now + 60, "scope": "predict", **more}
        return jwt.encode(claims, self.keys[key], algorithm="EdDSA", headers={"kid": key})


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_tokens_of_the_issuer_are_taken_by_scope_beside_our_own(tmp_path, provider):
    server = Server(tmp_path)
    server.start("--oidc-issuer", provider.url)
    try:
        server.deploy()

        def ask(token: str) -> str:
            with connect(server.settings, token=token) as client:
                return client.predict(MODEL, [TINY_ROW])["model"]

        until = time.monotonic() + 10
        while not provider.asked >= 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        now = int(time.time())
        good = [{}, {"scope": f"predict:{MODEL} other"}, {"scp": ["predict"], "scope": "predict"}, {"aud": ["x", "falaj-serving"]}]
        good += [{"exp": now - LEEWAY_SECONDS + 20}, {"nbf": now + LEEWAY_SECONDS - 20}]
        assert [ask(provider.token(**more)) for more in good] == [MODEL] * len(good)
        assert ask(server.token("predict")) == MODEL  # of this home
        bad = [
            ("expired", {"exp": now - LEEWAY_SECONDS - 5}), ("not valid yet", {"nbf": now + 300}), ("wrong audience", {"aud": "falaj-gateway"}),
            ("the token's scopes are none", {"scope": ""}), ("scopes are predict:other", {"scope": "predict:other"}),
            ("scope must be text", {"scope": {"a": 1}}), ("claim missing", {"sub": None}),
        ]  # fmt: skip
        for why, more in bad:
            with pytest.raises(AccessError, match=why):
                ask(provider.token(**more))
        ours = {"iss": "falaj", "iat": now, "exp": now + 60, "aud": "falaj-serving", "scope": "predict"}
        foreign = ed25519.Ed25519PrivateKey.generate()
        for claims, key, algorithm, headers in (
            (ours, provider.keys["a"], "EdDSA", {"kid": "a"}),  # the issuer's key in our own issuer's name
            ({**ours, "iss": provider.url, "sub": "a"}, foreign, "EdDSA", {"kid": "a"}),
            ({**ours, "iss": provider.url, "sub": "a"}, "", "none", {}),
            ({**ours, "iss": "https://evil", "sub": "a"}, foreign, "EdDSA", {}),
        ):
            with pytest.raises(AccessError, match="not valid"):
                ask(jwt.encode(claims, key or None, algorithm=algorithm, headers=headers))
        with connect(server.settings, token=provider.token()) as client, pytest.raises(AccessError, match="scope"):
            client.request("GET", f"/admin/models/{MODEL}")
    finally:
        assert server.kill(15) == ""


def test_changed_keys_are_fetched_and_known_ones_outlive_the_issuer(provider):
    issuer = OidcIssuer(provider.url, audience="falaj-serving")
    with pytest.raises(AccessError, match="not fetched yet"):
        issuer.read(provider.token())
    issuer.refresh()
    assert issuer.read(provider.token())[1] == {"predict"}
    provider.keys["b"] = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(AccessError, match="no key of that id"):
        issuer.read(provider.token(key="b"))
    issuer.refresh()
    assert issuer.read(provider.token(key="b"))
    provider.name = "https://somebody-else"
    issuer.refresh()
    assert "calls itself 'https://somebody-else'" in issuer.fault
    provider.server.shutdown()
    provider.server.server_close()
    issuer.refresh()
    assert "could not be fetched" in issuer.fault
    assert issuer.read(provider.token(key="b"))


def test_what_is_no_issuer_is_told_before_the_server_starts():
    with pytest.raises(ServingError, match="is no address"):
        OidcIssuer("login.example", audience="x")
