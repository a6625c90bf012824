"""What nginx and Redis make of what the manifests tell them: Debian's own, as the pods start them, but for places and ports."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import redis
import yaml
from gateway_site import Behind, run_gateway
from throw_away_ca import Authority
from websockets.sync.client import connect

from platform_assets.specs.events import Event
from platform_assets.specs.team import RedisSpec
from platform_assets.stages.serving.online_redis import RedisOnlineReader, RedisPlace
from resources.events import INBOX, open_queue
from resources.feast_store.redis_values import RedisValues
from resources.team import _ask_redis, redis_url

PATIENCE_SECONDS = 20
HOST = "falaj.example"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], *, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def replaced(text: str, by: Mapping[str, str]) -> str:
    for old, new in by.items():
        assert old in text
        text = text.replace(old, new)
    return text


def needed(program: str, package: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not on this machine: install Debian's package {package}")
    return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def proxied(authority: Authority, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Behind, int]]:
    """The gateway, and the port at which nginx stands before it."""
    program, folder, port = needed("nginx", "nginx-light"), tmp_path_factory.mktemp("proxy"), free_port()
    certificate, key = authority.issue("web", host=HOST)
    with run_gateway(folder / "gateway", url=f"https://{HOST}") as behind:
        config = replaced(
            (checkout / "infra" / "kubernetes" / "base" / "nginx.conf").read_text(),
            {
                "127.0.0.1:3000": f"127.0.0.1:{behind.port}", "listen 8443": f"listen 127.0.0.1:{port}", "/tmp/": f"{folder}/",
                "/etc/falaj/tls/tls.crt": str(certificate), "/etc/falaj/tls/tls.key": str(key),
            },
        )  # fmt: skip
        (folder / "nginx.conf").write_text(config)
        command = [program, "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        with running(command, port=port, log=folder / "nginx.log"):
            yield behind, port
        assert (folder / "nginx.log").read_text() == ""


@pytest.fixture
def browser(authority: Authority, proxied: tuple[Behind, int]) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    with httpx.Client(base_url=f"https://127.0.0.1:{proxied[1]}", headers={"Host": HOST}, verify=trust, timeout=30) as client:
        yield client


NAMED = {"sni_hostname": HOST}


def test_the_proxy_brings_people_to_the_gateway_over_tls_and_nobody_without_a_token(
    browser: httpx.Client, proxied: tuple[Behind, int]
) -> None:
    behind, _ = proxied
    assert browser.get("/healthz", extensions=NAMED).status_code == 200
    assert browser.get("/server_info", extensions=NAMED).status_code == 401
    told = browser.get("/server_info", headers={"Authorization": f"Bearer {behind.token('viewer')}"}, extensions=NAMED)
    assert (told.status_code, "dagster_version" in told.json()) == (200, True)
    assert browser.get("/server_info", headers={"Host": "evil.example"}, extensions=NAMED).status_code >= 400
    behind.forgive()


def test_what_the_page_is_told_as_it_happens_comes_through_the_proxy(authority: Authority, proxied: tuple[Behind, int]) -> None:
    behind, port = proxied
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    with socket.create_connection(("127.0.0.1", port)) as opened:
        asked = connect(
            f"wss://{HOST}/graphql", sock=opened, ssl=trust, server_hostname=HOST, subprotocols=["graphql-ws"], origin=f"https://{HOST}",
            additional_headers={"Authorization": f"Bearer {behind.token('viewer')}"},
        )  # fmt: skip
        with asked as page:
            page.send('{"type": "connection_init", "payload": {}}')
            assert "connection_ack" in page.recv(timeout=PATIENCE_SECONDS)


def test_the_proxy_speaks_no_tls_of_before_1_2_and_no_plain_http(proxied: tuple[Behind, int]) -> None:
    _, port = proxied
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as opened, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(opened, server_hostname=HOST)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 400


@pytest.fixture(scope="module")
def queues(authority: Authority, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSpec]:
    """Redis as the manifest starts it, with the users that the how-to writes."""
    needed("redis-server", "redis-server")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    certificate, key = authority.issue("redis")
    how_to = (checkout / "docs" / "how-to" / "first-cluster.md").read_text()
    users = re.findall(r"^ +(user (?:default|falaj) .*)$", how_to, flags=re.MULTILINE)
    assert len(users) == 2
    (folder / "users.acl").write_text("\n".join(users).replace("PASSWORD", "swordfish") + "\n")
    (folder / "password").write_text("swordfish\n")
    (folder / "password").chmod(0o600)
    stateful = next(iter(yaml.safe_load_all((checkout / "infra" / "kubernetes" / "base" / "redis.yaml").read_text())))
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    places = {
        "6379": str(port), "/etc/falaj/tls/tls.crt": str(certificate), "/etc/falaj/tls/tls.key": str(key),
        "/etc/falaj/users/users.acl": str(folder / "users.acl"), "/data": str(folder),
    }  # fmt: skip
    assert places.keys() <= set(container["args"])
    command = [*container["command"], *(places.get(one, one) for one in container["args"]), "--bind", "127.0.0.1"]
    with running(command, port=port, log=folder / "redis.log"):
        yield RedisSpec.model_validate({
            "url": f"rediss://falaj@127.0.0.1:{port}/0", "password_file": folder / "password", "ca": authority.certificate,
        })  # fmt: skip


def test_queues_and_online_values_work_as_the_user_of_the_how_to(queues: RedisSpec, tmp_path: Path) -> None:
    inbox = open_queue(INBOX, url=redis_url(queues), path=tmp_path)
    event = Event(id="1", source="/test", type="falaj.data.landed", time=datetime(2026, 1, 1, tzinfo=UTC), data={"dataset": "d"})
    inbox.publish(event)
    assert inbox.waiting("g") == 1
    (delivery,) = inbox.claim("g")
    inbox.acknowledge("g", [delivery.token])
    assert inbox.waiting("g") == 0
    assert _ask_redis(queues) is None
    place = RedisPlace(queues.url, queues.password_file, queues.ca)
    RedisValues(place).upsert("things", kinds={"score": "numeric"}, rows=[("a", 1, 2.0)])
    assert RedisOnlineReader(place).read("things", "a") == {"score": 2.0}


def test_that_user_may_not_administer_and_nobody_else_may_anything(queues: RedisSpec, authority: Authority) -> None:
    port = int(queues.url.rpartition(":")[2].partition("/")[0])
    how = {"ssl": True, "ssl_ca_certs": str(authority.certificate), "socket_timeout": PATIENCE_SECONDS}
    with redis.Redis("127.0.0.1", port, username="falaj", password="swordfish", **how) as client:
        client.set("k", "v")
        client.restore("copy", 0, client.dump("k"))  # as `falaj restore` lays queues
        assert client.get("copy") == b"v"
        for refused in (client.flushall, client.acl_list, client.config_get, client.shutdown):
            with pytest.raises(redis.exceptions.NoPermissionError):
                refused()
    with redis.Redis("127.0.0.1", port, **how) as nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()
    with redis.Redis("127.0.0.1", port, socket_timeout=5) as plain, pytest.raises(redis.exceptions.RedisError):
        plain.ping()
