"""The `falaj` command: every verb a thin call into a room. Bad input ends in one clear sentence and a non-zero exit."""

from __future__ import annotations

import atexit
import gc
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from platform_assets import cli_backup, cli_edge, cli_policy, cli_site, cli_subjects
from platform_assets.cli_governance import audit_app, keys_app, release_app
from platform_assets.cli_options import Json, Model, console, write
from platform_assets.errors import FalajError, SourceError
from resources.settings import Settings, read_settings, silence_telemetry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Falaj: one YAML file per model, its whole governed life.",
)
app.add_typer(release_app, name="release")
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")
app.add_typer(cli_subjects.subject_app, name="subject")
app.command("up")(cli_site.up)
app.command("down")(cli_site.down)
app.command("backup")(cli_backup.backup)
app.command("restore")(cli_backup.restore)
app.command("erase")(cli_subjects.erase)
app.command("bundle")(cli_edge.bundle)
app.command("collect")(cli_edge.collect)
drift_app = typer.Typer(
    no_args_is_help=True, help="Drift: hold two tables against each other, try a policy, ask for a retraining, acknowledge."
)
app.add_typer(drift_app, name="drift")
drift_app.command("ask")(cli_policy.ask)
drift_app.command("acknowledge")(cli_policy.acknowledge)
events_app = typer.Typer(no_args_is_help=True, help="Events: send one in, see what waits, read what went out.")
app.add_typer(events_app, name="events")
_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command; an error of ours becomes one sentence on stderr and exit status 1."""
    silence_telemetry()
    signal.signal(signal.SIGTERM, _stop)  # so that `finally` runs and what was started beside ends too
    atexit.register(gc.freeze)  # the last collections would walk all that a main job has loaded, for seconds, to free what goes anyhow
    try:
        app()
    except FalajError as error:
        Console(stderr=True).print(f"falaj: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:  # typer turns Ctrl-C into this
        if end.code == _INTERRUPTED:
            Console(stderr=True).print("falaj: interrupted; the next call goes on from what is stored.")
        raise


def _stop(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@app.command()
def run(
    models: Annotated[list[str] | None, typer.Argument(help="Models; all when none is named.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="DATASET=FILE: provide a dataset from a file, folder or URL.")] = None,
    json_file: Json = None,
) -> None:
    """Run the main job headless: materialise, gate, release, deploy, live traffic, drift, retraining, rollout."""
    from platform_assets.main_job.run import raise_refusals, run_main_job, write_json
    from platform_assets.main_job.tables import print_summary

    sources = _parse_sources(source or [])
    settings = _settings_for(sources)
    result = run_main_job(settings, models=models or [], sources=sources, console=console)
    print_summary(result, settings, console)
    if json_file:
        write_json(json_file, result)
    raise_refusals(result)


def _parse_sources(pairs: list[str]) -> dict[str, str]:
    sources = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not sign or not name or not path:
            raise SourceError(f"--source {pair!r}: write DATASET=FILE, for example hotel_bookings=bookings.parquet.")
        if "://" not in path and not Path(path).exists():
            raise SourceError(f"--source {pair!r}: there is no file or folder {path}; give a path that exists, or a URL.")
        sources[name] = path if "://" in path else str(Path(path).resolve())
    return sources


def _settings_for(sources: dict[str, str]) -> Settings:
    """Give provided data a home of its own beside the default one, unless FALAJ_HOME names one."""
    settings = read_settings()
    return settings.with_suffix("-".join(sorted(sources))) if sources and not settings.home_is_chosen else settings


@app.command()
def serve(model: Model, port: Annotated[int | None, typer.Option(help="Port on loopback.")] = None) -> None:
    """Run the inference server alone, in the foreground, until SIGTERM or Ctrl-C."""
    from platform_assets.main_job import operations

    sys.exit(operations.serve_in_foreground(read_settings(), model, port=port))


@app.command()
def status(
    at: Annotated[
        str | None, typer.Option(help="What was in production at this time, such as 2026-11-26T14:05; UTC unless it says.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Show live version, traffic, last drift, last verdicts, spend against budget, next scheduled run; or what was live at a time."""
    from platform_assets.main_job import audit_verbs, operations, tables

    if at is not None:
        then = audit_verbs.read_live_at(read_settings(), at)
        tables.print_live_at(then, console)
        write(json_file, then)
        return
    value = operations.read_status(read_settings())
    tables.print_status(value, console)
    write(json_file, value)


@app.command()
def spend(
    month: Annotated[str | None, typer.Option(help="Calendar month in UTC, such as 2026-11; this one when left out.")] = None,
    focus: Annotated[Path | None, typer.Option(help="Write the month's entries to this file, as FOCUS CSV.")] = None,
    json_file: Json = None,
) -> None:
    """Show what was spent in a month, in AED, against the budgets of tenants and models."""
    from platform_assets.main_job import spending, tables

    value = spending.read_spending(read_settings(), month=month, focus=focus)
    tables.print_spending(value, console)
    if focus:
        console.print(f"FOCUS: {focus}", soft_wrap=True, highlight=False)
    write(json_file, value)


@app.command()
def approve(
    what: Annotated[
        str, typer.Argument(metavar="RUN|MODEL@VERSION", help="A held run, or the beginning of its id; or a release that waits.")
    ],
    by: Annotated[str | None, typer.Option(help="For a run: who approves; the user of this shell when left out.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="For a release: file with the token of who approves; the user of this shell when left out.")
    ] = None,
) -> None:
    """Let go a run that admission holds, or a release that waits for a second person; the audit log says who did."""
    from platform_assets.main_job import approvals, spending

    if "@" not in what:
        console.print(f"Run {spending.approve_run(read_settings(), what, who=by)} is released.", highlight=False)
        return
    model, who = approvals.approve_release(read_settings(), what, token_file=token_file, by=by)
    console.print(f"{what} is approved by {who}. `falaj run {model}`, or {model}/deployed in the web UI, deploys it.", soft_wrap=True)


@app.command()
def predict(
    model: Model,
    file: Annotated[Path, typer.Option(help="CSV or Parquet file of raw named columns.")],
    out: Annotated[Path | None, typer.Option(help="CSV or Parquet file for the answers, written whole or not at all.")] = None,
    version: Annotated[str | None, typer.Option(help="Version; the live one when left out.")] = None,
) -> None:
    """Score every row of a file with a release, without the server; one JSON line per row on standard output, or a file."""
    from platform_assets.main_job import scoring

    settings = read_settings()
    if out is None:
        for line in scoring.predict_rows(settings, model, file, version=version):
            sys.stdout.write(json.dumps(line, default=str) + "\n")
        return
    done = scoring.predict_file(settings, model, file, out=out, version=version)
    console.print(f"{done.rows:,} rows of {file} answered by {model} {done.version}: {out}", soft_wrap=True, highlight=False)


@app.command()
def rollback(model: Model) -> None:
    """Go back to the previous release; the server's answer proves it by hash."""
    from platform_assets.main_job import operations

    before, after = operations.roll_back(read_settings(), model)
    console.print(f"{model}: {before[:12]} was live, {after[:12]} is live again (proven by hash).")


@app.command()
def reproduce(
    release: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="A version that `falaj release list MODEL` prints.")],
    json_file: Json = None,
) -> None:
    """Train a release again from its pinned inputs and compare; nothing stored is changed. Exit status 1 where it differs."""
    from platform_assets.errors import ReproductionError
    from platform_assets.main_job import tables
    from platform_assets.main_job.reproduce import reproduce as make_again

    value = make_again(read_settings(), release, console=console)
    tables.print_reproduction(value, console)
    write(json_file, value)
    if value["outcome"] == "different":
        raise ReproductionError(f"{release} was not reproduced: {value['sentence']}.")


@app.command()
def sweep(
    model: Model,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Trials to run, beside those of earlier calls.")] = 20,
    json_file: Json = None,
) -> None:
    """Search the declared space, each trial a run on the model's profile and budget; the best becomes a release if it passes the gates."""
    from platform_assets.main_job import sweep as sweeping
    from platform_assets.main_job import tables

    value = sweeping.run_sweep(read_settings(), model, trials=trials, console=console)
    tables.print_sweep(value, console)
    write(json_file, value)


@app.command()
def token(
    subject: Annotated[str, typer.Option(help="Who will carry it.")] = "me",
    scope: Annotated[list[str] | None, typer.Option(help="For the inference server: predict, predict:MODEL, metrics or admin.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="For the web UI's API: viewer, operator, approver or admin.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="With --role: whose deployments; all of them when left out.")] = None,
    minutes: Annotated[int, typer.Option(min=1, max=525_600, help="Valid for so long.")] = 60,
) -> None:
    """Print a bearer token of the local issuer, for the inference server unless a role is asked for."""
    from platform_assets.main_job import operations

    made = operations.mint_token(
        read_settings(), subject=subject, scopes=scope or [], roles=role or [], tenants=tenant or [], minutes=minutes
    )
    sys.stdout.write(made + "\n")


@app.command()
def schema(
    folder: Annotated[Path, typer.Argument(help="Folder for compute, dataset, model and event.schema.json.")] = Path(),
) -> None:
    """Write the JSON schemas of declarations, for editors, and of events."""
    from platform_assets.main_job import operations

    for path in operations.write_schemas(folder):
        console.print(f"wrote {path}")


@app.command()
def check() -> None:
    """Check every declaration; report all faults of all files together."""
    from platform_assets.components.tree import load_tree

    catalogue = load_tree(read_settings().defs_root)
    console.print(f"{len(catalogue.models)} models and {len(catalogue.datasets)} datasets are declared; every rule holds.")


@app.command()
def bench(
    area: Annotated[
        str, typer.Argument(help="compression, drift, faults, governance, orchestration, pipeline, rollout, serving, soak or training")
    ] = "pipeline",
    part: Annotated[str | None, typer.Option(help="One part of the area alone, such as monitoring_runs of orchestration.")] = None,
    json_file: Json = None,
    quick: Annotated[bool, typer.Option("--quick", help="A rough answer within a minute.")] = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Measure, and say what was measured."""
    from platform_assets.main_job import tables
    from platform_assets.main_job.bench import suite

    value = suite.run_area(area, part=part, quick=quick, console=console)
    tables.print_benchmark(value, console)
    write(json_file, value)


@drift_app.command("report")
def drift_report(
    model: Model,
    *,
    reference: Annotated[str, typer.Option(help="CSV, Parquet or Delta: a file, folder or URL; what rows looked like.")],
    current: Annotated[str, typer.Option(help="The same; what they look like now.")],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page to this file.")] = None,
    json_file: Json = None,
) -> None:
    """Hold one table against another: what moved, how sure that is, and whether the model leans on it."""
    from dataclasses import asdict

    from platform_assets.main_job import drift_verbs, tables

    value = drift_verbs.report_tables(read_settings(), model, reference=reference, current=current)
    tables.print_drift(value, console)
    if html is not None:
        drift_verbs.write_page(html, value)
    write(json_file, {**value, "report": asdict(value["report"])})


@drift_app.command("replay")
def drift_replay(
    table: Annotated[str, typer.Argument(help="CSV, Parquet or Delta: a file, folder or URL.")],
    *,
    time: Annotated[str, typer.Option(help="Column that orders the rows.")],
    target: Annotated[str, typer.Option(help="Column to predict: two classes, several, or an amount, told from its values.")],
    policy: Annotated[
        Path | None,
        typer.Option(help="YAML file with any of budget, least_gain, refresh_keeps, credit_windows; the default policy when left out."),
    ] = None,
    without: Annotated[list[str] | None, typer.Option(help="Column that the model may not read; once for each.")] = None,
    window_rows: Annotated[int | None, typer.Option(min=50, help="Rows a window; a sixtieth of the table when left out.")] = None,
    history: Annotated[int, typer.Option(min=1, max=1000, help="Windows that a training from scratch reads.")] = 5,
    picture: Annotated[Path | None, typer.Option(help="PNG of score over time; beside the JSON when left out.")] = None,
    json_file: Json = None,
) -> None:
    """Replay a retraining policy over a table's past: score, gain, cost, trainings, delay, false alarms, beside plain schedules."""
    from platform_assets.main_job import drift_verbs, tables

    value, drawn = drift_verbs.replay_table(
        table, time=time, target=target, policy=policy, without=without or [], window_rows=window_rows, history=history, console=console
    )
    place = picture or (json_file.with_suffix(".png") if json_file else None)
    if place is not None:
        drift_verbs.write_picture(place, drawn)
    tables.print_replay(value, console)
    write(json_file, value)


@events_app.command("send")
def events_send(
    kind: Annotated[str, typer.Argument(help="Type, for example falaj.retraining.asked.")],
    field: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE of the event's data, for example model=digits.")] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="The same id again is the same event; a fresh one when left out.")] = None,
) -> None:
    """Put an event into the inbox."""
    from platform_assets.main_job import event_verbs

    console.print(event_verbs.send(read_settings(), kind, fields=field or [], event_id=event_id), soft_wrap=True)


@events_app.command("list")
def events_list(json_file: Json = None) -> None:
    """Show how many events wait in the inbox, and its dead letters."""
    from platform_assets.main_job import event_verbs, tables

    value = event_verbs.list_inbox(read_settings())
    tables.print_events(value, console)
    write(json_file, value)


@events_app.command("replay")
def events_replay(token: Annotated[str, typer.Argument(help="Token of a dead letter, as `falaj events list` prints it.")]) -> None:
    """Hand a dead letter out again."""
    from platform_assets.main_job import event_verbs

    event_verbs.replay(read_settings(), token)
    console.print(f"{token} is handed out again.", soft_wrap=True)


@events_app.command("read")
def events_read(
    group: Annotated[str, typer.Option(help="Who reads; each group gets every event.")] = "cli",
    most: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    keep: Annotated[bool, typer.Option("--keep", help="Do not acknowledge: they come again after a minute.")] = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Read what went out, one JSON line an event, and acknowledge it."""
    from platform_assets.main_job import event_verbs

    for line in event_verbs.read_outbox(read_settings(), group=group, most=most, keep=keep):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
