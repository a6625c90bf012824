"""What a terminal shows: the summary of a main job, the status, a benchmark. Plain values in, rich tables out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from resources.settings import CHECKOUT, Settings


def print_summary(result: Mapping[str, Any], settings: Settings, console: Console) -> None:
    """Print the table that a main job ends with, the report's path, and how to open the web UI on the same instance."""
    overview = Table(
        "model", "live", "teacher", "boosted trees", "drift at row", "before", "during", "after", title="Models", title_justify="left"
    )
    for row in result["models"]:
        lead = row["leading_metric"]
        values = (
            row["holdout"].get(lead),
            row["baseline"].get(lead),
            row["drift_found_at_row"],
            row["metric_before"],
            row["metric_drifted"],
            row["metric_after"],
        )
        overview.add_row(f"{row['name']} ({lead})", row["live_version"] or "-", *(_text(value) for value in values))
    console.print(overview)
    candidates = Table(
        "model",
        "candidate",
        "metric",
        "KiB",
        "CPU µs b1",
        "b32",
        "p50 ms",
        "p99 ms",
        "why",
        title="Candidates on the front, and the teacher",
        title_justify="left",
    )
    for row in result["models"]:
        shown = [c for c in row["candidates"] if c["on_front"] or c["name"] == "teacher"]  # all of them stand in the report
        for c in sorted(shown, key=lambda one: one["cpu_us_b1"]):
            figures = (f"{c['metric']:.4f}", f"{c['size_bytes'] / 1024:,.1f}", f"{c['cpu_us_b1']:.0f}", f"{c['cpu_us_b32']:.1f}")
            latency = (f"{c['latency_ms_p50']:.3f}", f"{c['latency_ms_p99']:.3f}")
            candidates.add_row(row["name"], c["name"], *figures, *latency, c["why"], style="bold green" if c["chosen"] else "")
    console.print(candidates)
    stages = sorted({stage for row in result["models"] for stage in row["seconds"]})
    seconds = Table("stage", *(row["name"] for row in result["models"]), title="Seconds per stage", title_justify="left")
    for stage in stages:
        seconds.add_row(stage, *(_text(row["seconds"].get(stage)) for row in result["models"]))
    console.print(seconds)
    console.print(f"{result['wall_seconds']:.0f} s in all, peak memory {result['peak_rss_bytes'] / 2**30:.2f} GiB.", highlight=False)
    console.print(f"Report:  {result['report']}", soft_wrap=True, highlight=False)
    home = settings.home.root
    prefix = "" if home == CHECKOUT / ".falaj" else f"FALAJ_HOME='{home}' "
    console.print(f"Web UI:  {prefix}make ui    (the same instance: every step as assets and checks)", soft_wrap=True, highlight=False)


def print_status(value: Mapping[str, Any], console: Console) -> None:
    """Print what is live, what was decided, what was spent and what comes next."""
    table = Table("model", "live", "challenger", "answered", "last drift", "last verdict", "seconds spent", "next scheduled run")
    for row in value["models"]:
        names = ("name", "live_version", "challenger", "rows_answered", "drift", "verdict", "seconds_spent", "next_run")
        table.add_row(*(_text(row[name]) for name in names))
    console.print(table)
    print_spending(value["spend"], console)
    for run in value["held"]:
        console.print(f"held: {run['job']} ({run['run_id'][:8]}); falaj approve {run['run_id'][:8]} releases it", highlight=False)
    console.print(f"running: {', '.join(value['running']) or 'nothing'}; state in {value['home']}", soft_wrap=True, highlight=False)


def print_live_at(value: Mapping[str, Any], console: Console) -> None:
    """Print what was in production at a time, and the entry of the audit log that says so."""
    table = Table("model", "live", "since", "made so by", "entry", title=f"In production at {value['at']}", title_justify="left")
    for row in value["models"]:
        by = f"{row['action']}, {row['by']}" if row["live"] else None
        table.add_row(row["model"], (row["live"] or "nothing")[:12], *(_text(one) for one in (row["since"], by, row["entry"])))
    console.print(table)


def print_sweep(value: Mapping[str, Any], console: Console) -> None:
    """Print what a search found."""
    counts = ", ".join(f"{count} {state}" for state, count in value["trials"].items()) or "none"
    console.print(f"{value['model']}: trials so far: {counts}.", highlight=False)
    best = value["best"]
    if best and best["trial"] is not None:
        values = ", ".join(f"{name}: {chosen}" for name, chosen in best["values"].items())
        console.print(f"Best: trial {best['trial']}, {value['metric']} {best['value']:.4f} with {values}.", highlight=False)
    console.print(value["sentence"], highlight=False)


def print_spending(value: Mapping[str, Any], console: Console) -> None:
    """Print a month's spend against budget: every tenant, and below it its models; then the profiles that do not fit."""
    table = Table(
        "tenant", "model", "runs", "CPU h", "GPU h", "spent AED", "promised", "budget", "taken", title=f"Spend in {value['month']}",
        title_justify="left",
    )  # fmt: skip
    for row in sorted([*value["tenants"], *value["models"]], key=lambda row: (row["tenant"], row.get("model", ""))):
        hours = (f"{row['cpu_seconds'] / 3600:,.2f}", f"{row['gpu_seconds'] / 3600:,.2f}")
        amounts = (f"{row['spent_aed']:,.2f}", f"{row['promised_aed']:,.2f}", _text(row["budget_aed"]))
        taken = f"{row['share']:.0%}" if row["share"] is not None else "-"
        name = row["tenant"] or "(for no model)"
        table.add_row(name, row.get("model", "all"), _text(row["runs"]), *hours, *amounts, taken, style="" if "model" in row else "bold")
    console.print(table)
    for advice in value["right_sizing"]:
        if advice["verdict"] in {"smaller", "larger"}:
            console.print(f"right-sizing: {advice['model']} {advice['stage']}: {advice['sentence']}", soft_wrap=True, highlight=False)


def print_benchmark(value: Mapping[str, Any], console: Console) -> None:
    """Print a benchmark's rows."""
    table = Table("what", "value", "unit", "against", "must", "aim", "holds")
    for row in value["rows"]:
        table.add_row(*(_text(row[name]) for name in ("what", "value", "unit", "against", "must", "aim", "holds")))
    console.print(table)


def print_replay(value: Mapping[str, Any], console: Console) -> None:
    """Print a replayed policy beside the plain schedules."""
    table = Table(title=f"{value['table']}: {value['kind']}, {value['windows']} windows of {value['window_rows']} rows")
    for head in ("policy", value["metric"], "gain", "cost", "trainings", "refreshes", "delay", "false alarms"):
        table.add_column(head)
    table.add_row("never", _text(value["score_never"]), "0", "0", "0")
    for row in reversed(value["schedules"]):
        table.add_row(f"every {row['every']}", "", _text(row["gain"]), _text(row["cost"]))
    table.add_row("always", _text(value["score_always"]), "1", "1")
    counts = (_text(value[name]) for name in ("score", "gain", "cost", "trainings", "refreshes", "delay", "false_alarms"))
    table.add_row("this policy", *counts, style="bold")
    console.print(table)
    for column in value["left_out"]:
        console.print(f"left out: {column['column']}, {column['why']}")
    console.print(value["sentence"])


def print_events(value: Mapping[str, Any], console: Console) -> None:
    """Print how many events wait, and a table of the dead letters."""
    console.print(f"{value['waiting']} events wait in the inbox.")
    if value["dead"]:
        letters = Table("token", "since", "why", "event", title="Dead letters", title_justify="left")
        for one in value["dead"]:
            letters.add_row(one["token"], one["at"], one["why"], one["event"][:200])
        console.print(letters)


def print_drift(value: Mapping[str, Any], console: Console) -> None:
    """Print what moved between two tables, what the model leans on most first, and in a line what did not."""
    window = value["report"].windows[0]
    rows = value["rows"]
    title = f"{value['current']} ({rows['current']:,} rows) against {value['reference']} ({rows['reference']:,} rows)"
    table = Table("moved", "by", "effect", "threshold", "p", "importance", "was", "now", title=title, title_justify="left")
    for column in window.moved:
        figures = (f"{column.effect:.3f}", f"{column.threshold:.3f}", f"{column.p_value:.1e}", f"{column.importance:.2f}")
        table.add_row(column.column, column.statistic, *figures, column.was, column.now)
    console.print(table)
    still = [column.column for column in window.columns if not column.drifted]
    console.print(f"not moved: {', '.join(still) or 'none'}", highlight=False)
    for name, why in value["left_out"].items():
        console.print(f"left out: {name}, {why}", highlight=False)
    told = (
        f"release {value['release']} says what counts" if value["release"] else f"{value['model']} has no live release: every column counts"
    )
    outcome = "drift" if window.drifted else "drift in nothing that the model leans on" if window.harmless else "no drift"
    console.print(f"{value['model']}: {outcome}; {told}.", highlight=False)


def print_reproduction(value: Mapping[str, Any], console: Console) -> None:
    """Print what was compared, recorded beside found, and the outcome."""
    table = Table("compared", "recorded", "made again")
    inputs = value["training_set"]
    table.add_row(
        "training set",
        inputs["digest"][:12],
        inputs["found"][:12] if inputs["found"] else "erased" if value["outcome"] == "erased" else "taken from the store",
    )
    if "weights" in value:
        weights, noted = value["weights"], value["conditions"]["recorded"]
        table.add_row("weights", f"{weights['numbers']:,}", f"{weights['numbers'] - weights['different']:,} equal bit for bit")
        for name, found in value["holdout"]["now"].items():
            table.add_row(f"holdout {name}", f"{value['holdout']['recorded'][name]:.6f}", f"{found:.6f}")
        for name, found in value["conditions"]["now"].items():
            table.add_row(name, _text(noted[-1][name]) if noted else "not noted", _text(found))
    console.print(table)
    console.print(f"{value['model']}@{value['version']}: {value['outcome'].replace('_', ' ')}: {value['sentence']}.", highlight=False)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
