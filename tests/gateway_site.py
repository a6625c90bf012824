"""A gateway on loopback before real Dagster web servers, each on an instance of its own, all in this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import httpx
import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context

from platform_assets.gateway.app import Gateway
from platform_assets.gateway.guard import Guard
from platform_assets.gateway.inbox import Inbox
from platform_assets.gateway.login import Login, OidcClient
from platform_assets.gateway.sites import Site
from platform_assets.identity.limits import Buckets, Lockout
from platform_assets.identity.policy import Deployment, read_policies
from platform_assets.identity.sessions import Sealer
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.issuers import LocalIssuer
from resources.once import UsedNames
from resources.sockets import listen
from resources.tokens import leave_ticket, mint_identity

POLICIES = Path(__file__).resolve().parent.parent / "infra" / "policies"


@dataclass
class Behind:
    """The gateway, how it is reached, and what stands behind it."""

    url: str
    gateway: Gateway
    keys: Path
    instances: dict[str, DagsterInstance]
    port: int

    def token(self, *roles: str, tenants: Sequence[str] = ("*",), subject: str = "amal", audience: str = "falaj-gateway") -> str:
        return mint_identity(self.keys, roles=roles, tenants=tenants, subject=subject, seconds=600, audience=audience)

    def client(self, *roles: str, tenants: Sequence[str] = ("*",), subject: str = "amal") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token(*roles, tenants=tenants, subject=subject)}"} if roles else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def ticket(self, *roles: str, tenants: Sequence[str] = ("*",)) -> str:
        code = leave_ticket(self.keys, roles=roles, tenants=tenants, subject="amal", seconds=600)
        return f"{self.url}/auth/ticket?t={code}"

    def audited(self, action: str) -> list[dict]:
        return [entry for entry in self.gateway.guard.audit.entries() if entry["action"] == action]

    def forgive(self) -> None:
        """Forget failures and rates, as if an hour had passed."""
        self.gateway.guard.lockout = Lockout()
        self.gateway.guard.buckets = Buckets(per_second=1e6, burst=1e6)


@contextmanager
def run_site(place: Path, instance: DagsterInstance, *, prefix: str = "") -> Iterator[None]:
    """Serve Dagster's web server on a Unix socket from a thread."""
    with (
        WorkspaceProcessContext(instance, version="", read_only=False, workspace_load_target=EmptyWorkspaceTarget()) as context,
        _served(create_app_from_workspace_process_context(context, prefix), listen(place)),
    ):
        yield


@contextmanager
def run_gateway(
    folder: Path,
    tenants: Sequence[str] = ("*",),
    *,
    oidc: OidcClient | None = None,
    inbox: Callable[[Guard], Inbox] | None = None,
    more: Sequence[Site] = (),
    url: str | None = None,
) -> Iterator[Behind]:
    """Serve a gateway; `tenants` of `*` alone is one deployment for all, without a prefix.

    `inbox` makes what takes webhooks in; `more` are sites that run already; `url` is that of a proxy before it.
    """
    opened = socket.create_server(("127.0.0.1", 0))
    port = opened.getsockname()[1]
    own = f"127.0.0.1:{port}"
    url = url or f"http://{own}"
    guard = Guard(
        verifier=oidc.issuer if oidc else LocalIssuer(folder / "keys"),
        sealer=Sealer(b"k" * 32),
        policies=read_policies({file.name: file.read_text() for file in POLICIES.iterdir()}),
        audit=SqliteAuditLog(folder / "state.sqlite", signer=HeadSigner(folder / "keys")),
        used=UsedNames(folder / "used.sqlite"),
    )
    with ExitStack() as stack:
        instances, sites = {}, []
        for number, tenant in enumerate(tenants):
            home = folder / f"instance{number}"
            home.mkdir(parents=True)
            (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
            instances[tenant] = stack.enter_context(DagsterInstance.from_config(str(home)))
            prefix = "" if tenant == "*" else f"/{tenant}"
            place = folder / "run" / f"{number}.sock"
            stack.enter_context(run_site(place, instances[tenant], prefix=prefix))
            sites.append(Site(Deployment(tenant), place, prefix))
        hosts = frozenset({own, url.partition("://")[2]})
        gateway = Gateway([*sites, *more], guard, Login(guard, url, oidc), hosts, inbox=inbox(guard) if inbox else None)
        stack.enter_context(_served(gateway.app(), opened))
        yield Behind(url, gateway, folder / "keys", instances, port)


@contextmanager
def _served(app: object, opened: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=1 << 20,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield
    server.should_exit = True
    thread.join(20)


def questions(run: str, secret: str) -> list[str]:
    """Every way of asking GraphQL for a run that bears this word, its asset, events and log; the last ones leave the log's folder."""
    return [
        f'{{ runOrError(runId: "{run}") {{ ... on Run {{ jobName tags {{ value }} }} }} }}',
        "{ runsOrError { ... on Runs { results { jobName tags { value } } } } }",
        '{ runTagsOrError(tagKeys: ["word"]) { ... on RunTags { tags { values } } } }',
        f'{{ assetOrError(assetKey: {{path: ["asset", "{secret}"]}}) {{ ... on Asset {{ assetMaterializations {{ description }} }} }} }}',
        "{ assetsOrError { ... on AssetConnection { nodes { key { path } } } } }",
        "{ assetRecordsOrError(limit: 100) { ... on AssetRecordConnection { assets { key { path } } } } }",
        f'{{ logsForRun(runId: "{run}") {{ ... on EventConnection {{ events {{ ... on MessageEvent {{ message }} }} }} }} }}',
        f'{{ capturedLogs(logKey: ["{run}", "compute_logs", "step"]) {{ stdout }} }}',
        "{ runsFeedOrError(limit: 100, view: ROOTS) { ... on RunsFeedConnection { results { jobName } } } }",
    ]


def doors(run: str) -> list[str]:
    """Every path behind which something of a run stands."""
    return [
        f"logs/{run}/compute_logs/step/out",
        f"download_debug/{run}",
        "notebook?path=a.ipynb&repoLocName=x",
        "server_info",
        "graphql",
        "",
    ]


def spellings(own: str, other: str) -> list[str]:
    """Addresses that might be read as another tenant's, beside their own and the bare one."""
    return [
        f"/{other}/", f"/{own}/../{other}/", f"/{own}/%2e%2e/{other}/", f"/{own}/..%2f{other}/", f"/{own}//{other}/", f"//{other}/", f"/{other}%2f",
        f"/%{ord(other[0]):x}{other[1:]}/", f"/{other.upper()}/", f"/{own}/", "/", f"/{other}\\", f"/{own};/{other}/",
        f"/{own}/logs/../../{other}/", f"http://dagster/{other}/", f"/{other}%00/", f"/{other}./",
    ]  # fmt: skip


def fill(instance: DagsterInstance, *, secret: str) -> str:
    """Put a run with an event, an asset and a log into an instance, each bearing this word; return the run's id."""

    @dg.op(name=f"op_{secret}")
    def say(context) -> None:
        context.log.info("event says %s", secret)
        context.log_event(dg.AssetMaterialization(["asset", secret], description=secret))

    @dg.job(name=f"job_{secret}", tags={"word": secret})
    def whole() -> None:
        say()

    run_id = whole.execute_in_process(instance=instance).run_id
    log = Path(instance.compute_log_manager.get_captured_local_path([run_id, "compute_logs", "step"], "out"))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"log says {secret}\n")
    return run_id
