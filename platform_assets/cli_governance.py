"""Commands of governance: releases, the keys that they are encrypted under, the audit log. Each a thin call, as in `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from platform_assets.cli_options import Json, Model, Version, console
from platform_assets.errors import ReleaseError, ServingError
from resources.settings import read_settings

release_app = typer.Typer(no_args_is_help=True, help="Releases: list, show, verify, seal, export.")
keys_app = typer.Typer(no_args_is_help=True, help="Keys that releases are encrypted under, and certificates of services.")
audit_app = typer.Typer(no_args_is_help=True, help="The audit log: verify it, take a checkpoint of it, report from it.")


@release_app.command("list")
def list_releases(model: Model) -> None:
    """List a model's releases, newest last."""
    from platform_assets.main_job import operations

    table = Table("version", "candidate", "metric", "MLflow", "made", "live")
    for row in operations.list_releases(read_settings(), model):
        table.add_row(*(str(row[name]) for name in ("version", "candidate", "metric", "mlflow_version", "created", "live")))
    console.print(table)


@release_app.command("show")
def show_release(model: Model, version: Version = None) -> None:
    """Print a release's model card."""
    from rich.markdown import Markdown

    from platform_assets.main_job import operations

    console.print(Markdown(operations.read_card(read_settings(), model, version)))


@release_app.command("verify")
def verify_release(model: Model, version: Version = None) -> None:
    """Check a release's signature and every byte of its files."""
    from platform_assets.main_job import operations

    digest, files = operations.verify_release(read_settings(), model, version)
    console.print(f"{model} {digest[:12]}: the signature and {files} files hold.")


@release_app.command("gate")
def ask_gate(model: Model) -> None:
    """Say what the gate decided on the newest candidate, against bounds and champion. Exit status 1 where it was refused."""
    from platform_assets.main_job import releases
    from platform_assets.main_job.operations import open_parts

    console.print(f"{model}: {releases.gate_sentence(open_parts(read_settings(), model).audit, model)}.", soft_wrap=True, highlight=False)


@release_app.command("seal")
def seal_releases(model: Model) -> None:
    """Sign and encrypt releases that were made before releases were signed."""
    from platform_assets.main_job import operations

    sealed = operations.seal_releases(read_settings(), model)
    console.print(f"{model}: {len(sealed)} releases were sealed. {', '.join(digest[:12] for digest in sealed)}")


@release_app.command("export")
def export_release(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="New folder for the plain files and model.sig.")],
    version: Version = None,
) -> None:
    """Decrypt a release into a folder, with its OpenSSF signature beside the files."""
    from platform_assets.main_job import operations

    digest = operations.export_release(read_settings(), model, version, folder=folder)
    console.print(f"{model} {digest[:12]}: decrypted into {folder}.", soft_wrap=True, highlight=False)


@keys_app.command("rotate")
def rotate_keys(
    *,
    services: Annotated[
        bool, typer.Option("--services", help="Instead: sign certificates of services (FALAJ_MTLS=local) anew, and refuse those of before.")
    ] = False,
) -> None:
    """Wrap the key of every encrypted file under a new key; nothing is encrypted anew and everything stays readable throughout."""
    from platform_assets.main_job import operations

    if services:
        if not operations.rotate_services(read_settings()):
            raise ServingError("the authority is a new one, and the inference server does not take its certificates yet; its log says why")
        console.print("Certificates of services are signed by a new authority; those of before are refused.")
        return
    done = operations.rotate_keys(read_settings())
    console.print(f"Key {done.added} is in use; {len(done.rewrapped)} releases were brought to it.", highlight=False)
    if done.forgotten:
        console.print(f"Destroyed, since no release needs them: {', '.join(done.forgotten)}.", highlight=False)
    if done.unreadable:
        raise ReleaseError("these could not be read before either: " + "; ".join(done.unreadable.values()))


@audit_app.command("verify")
def verify_audit(
    checkpoint: Annotated[Path | None, typer.Option(help="File of `falaj audit checkpoint`: the log must go on from there.")] = None,
) -> None:
    """Check every entry of the audit log, their order and the signature; name the place that does not fit."""
    from platform_assets.main_job import audit_verbs

    length = audit_verbs.verify_audit(read_settings(), checkpoint=checkpoint)
    since = f" and go on from {checkpoint}" if checkpoint else ""
    console.print(f"{length} entries of the audit log hold and are signed{since}.", soft_wrap=True, highlight=False)


@audit_app.command("checkpoint")
def take_checkpoint(file: Annotated[Path, typer.Argument(help="File to write, to be kept on another machine.")]) -> None:
    """Write the signed head of the audit log; a log that is put back to an earlier state later is told by it."""
    from platform_assets.main_job import audit_verbs

    found = audit_verbs.take_checkpoint(read_settings(), file)
    console.print(f"{file}: the audit log has {found['length']} entries. Keep it on another machine.", soft_wrap=True, highlight=False)


@audit_app.command("report")
def report_audit(
    model: Model,
    since: Annotated[str | None, typer.Option("--from", help="Beginning, such as 2026-11-01; the log's when left out.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="End; now when left out.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for the page; in the home's reports when left out.")] = None,
    json_file: Json = None,
) -> None:
    """Write the regulator's report of a model: one page and JSON, from lineage and audit log alone."""
    from platform_assets.main_job import audit_verbs

    made = audit_verbs.write_report(read_settings(), model, since=since, until=until, html=html, json_file=json_file)
    clauses = made["report"]["clauses"]
    shown = sum(row["evidence"] != ["no evidence"] for row in clauses)
    console.print(f"{shown} of {len(clauses)} clauses have evidence; the others say so. It is no certificate.", highlight=False)
    console.print(f"Page: {made['page']}\nJSON: {made['json']}", soft_wrap=True, highlight=False)
