"""Commands of what runs in the background: start it, stop it. Each a thin call, as in `cli.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from platform_assets.cli_options import console
from resources.settings import Settings, read_settings


def up(
    tenants: Annotated[bool, typer.Option("--tenants", help="One of each a tenant, in a home of its own below this one.")] = False,  # noqa: FBT002 - typer's way of a flag
    mlflow: Annotated[bool, typer.Option("--mlflow", help="MLflow's pages and API too, under /mlflow/ of the same gateway.")] = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Start the web UI, the daemon and the inference server on loopback, in the background."""
    from platform_assets.main_job import site
    from resources.serving import server_address

    settings = read_settings()
    if tenants:
        _up_by_tenant(settings, mlflow=mlflow)
        return
    site.prepare(settings)
    site.start_server(settings, tied=False)
    site.start_daemon(settings, tied=False)
    address = site.start_web(settings, mlflow=mlflow)
    console.print(f"Inference server {server_address(settings)}, state in {settings.home.root}. `falaj down` stops them.", soft_wrap=True)
    _say_link(settings, address)


def _up_by_tenant(settings: Settings, *, mlflow: bool) -> None:
    from platform_assets.main_job import tenants
    from resources.serving import server_address

    found = tenants.prepare_tenants(settings)
    address = tenants.start_tenants(settings, found, mlflow=mlflow)
    for one in found:
        where = f"{address}/{one.tenant}/, inference server {server_address(one)}, state in {one.home.root}"
        console.print(f"{one.tenant}: {where}", soft_wrap=True, highlight=False)
    console.print("`falaj down` stops them.")
    _say_link(settings, address)


def _say_link(settings: Settings, address: str) -> None:
    from platform_assets.main_job import site

    said = "" if settings.identity.issuer else " (logs you in; good once, for an hour)"
    console.print(f"Web UI{said}:\n{site.login_link(settings, address)}", soft_wrap=True, highlight=False)


def down() -> None:
    """Stop what `falaj up` started in this home, and in its tenants'."""
    from platform_assets.main_job import site

    stopped = site.stop_all(read_settings())
    console.print(f"Stopped: {', '.join(stopped) or 'nothing was running'}.")
