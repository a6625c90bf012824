"""Pages under docs, made from what they speak of: specs, graph, command, variables, manifests. Nothing here is written by hand twice.

`python -m platform_assets.reference` writes them; with `--check` it only says which are stale, with exit status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets import keys
from platform_assets.specs.catalogue import SPECS, load_catalogue
from platform_assets.specs.compute import ComputeSpec
from platform_assets.specs.dataset import DatasetSpec
from platform_assets.specs.model import ModelSpec
from platform_assets.specs.team import TeamSpec, spec_of
from platform_assets.specs.words import default_of, reachable_specs, type_of
from platform_assets.views import render_views
from resources.home import write_atomically
from resources.settings import CHECKOUT, read_settings, silence_telemetry
from resources.variables import QUIET, VARIABLES

if TYPE_CHECKING:
    import dagster as dg
    from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
    from pydantic import BaseModel

FOLDER = CHECKOUT / "docs"
REMAKE = "python -m platform_assets.reference"
_SHOWN_MODEL = "hotel_cancellations"
_MADE = f"<!-- Made by `{REMAKE}`: change what it is made from. -->"


def render_pages() -> dict[str, str]:
    """Return every page by its path below docs; the same checkout gives the same bytes, whatever the environment."""
    from platform_assets.definitions import SHIPPED

    pages = {
        "reference/declarations.md": _declarations(),
        "reference/graph.md": _graph(_shipped_repository()),
        "reference/commands.md": _commands(),
        "reference/settings.md": _settings(),
        **{f"explanation/{name}": lines for name, lines in render_views(load_catalogue(SHIPPED)).items()},
    }
    return {name: "\n".join([_MADE, "", *lines]) + "\n" for name, lines in pages.items()}


def stale_pages(folder: Path) -> list[str]:
    """Return the names of pages that differ from what they would be now, missing ones too."""
    return [name for name, text in render_pages().items() if not (folder / name).is_file() or (folder / name).read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check name the stale ones."""
    parser = argparse.ArgumentParser(prog=REMAKE, description="Write docs/reference, and the views in docs/explanation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    silence_telemetry()
    if parser.parse_args(arguments).check:
        stale = stale_pages(FOLDER)
        if stale:
            sys.stderr.write(f"docs is stale: {', '.join(stale)}; `{REMAKE}` writes it anew.\n")
        return int(bool(stale))
    for name, text in render_pages().items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(FOLDER / name, text.encode())
    return 0


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _declarations() -> Iterator[str]:
    yield "# Declarations"
    yield ""
    yield "A declaration is a file `defs.yaml` with `type` and `attributes`. Unknown keys are refused, and so are aliases and template"
    yield "expressions. Names are small letters, digits and underscores. Spans are written `90s`, `15m`, `6h`, `14d` or `2w`; a field"
    yield "without a default is required."
    yield ""
    for spec, title in ((ModelSpec, "A model"), (DatasetSpec, "A dataset"), (ComputeSpec, "The compute catalogue")):
        yield from _declaration(spec, title)


def _declaration(spec: type[BaseModel], title: str) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"`type: {next(name for name, one in SPECS.items() if one is spec)}`"
    yield ""
    for inner in reachable_specs(spec):
        yield f"### {inner.__name__}"
        yield ""
        yield " ".join((inner.__doc__ or "").split())
        yield ""
        yield from _table(("field", "type", "default", "meaning"), _field_rows(inner))


def _field_rows(spec: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    for name, info in spec.model_fields.items():
        kind = type_of(info, link=lambda inner: f"[{inner.__name__}](#{inner.__name__.lower()})")
        default = default_of(spec, name)
        nested = default is not None and default.startswith("{") and default != "{}"
        shown = "see there" if nested else "required" if default is None else f"`{default}`"
        yield f"`{name}`", kind, shown, info.description or ""


def _shipped_repository() -> dg.RepositoryDefinition:
    """Load the shipped tree from its catalogue: neither FALAJ_DEFS nor data provided to a home may change the page."""
    from platform_assets.definitions import SHIPPED, build_defs
    from resources.parts import Parts

    return build_defs(Parts(read_settings(), load_catalogue(SHIPPED), {})).get_repository_def()


def _graph(repository: dg.RepositoryDefinition) -> Iterator[str]:
    graph = repository.asset_graph
    found = sorted(graph.get_all_asset_keys(), key=lambda key: _place(key.path))
    yield "# The graph of the shipped declarations"
    yield ""
    yield f"## The life of one model: {_SHOWN_MODEL}"
    yield ""
    yield from _diagram(graph)
    yield "## Assets"
    yield ""
    rows = (
        (
            f"`{key.to_user_string()}`",
            ", ".join(f"`{up.to_user_string()}`" for up in sorted(graph.get(key).parent_keys)),
            graph.get(key).description or "",
        )
        for key in found
    )
    yield from _table(("asset", "made from", "what it is"), rows)
    yield "## Checks"
    yield ""
    checks = {key: sorted(check.name for check in graph.asset_check_keys if check.asset_key == key) for key in found}
    yield from _table(
        ("asset", "checks"),
        ((f"`{key.to_user_string()}`", ", ".join(f"`{name}`" for name in names)) for key, names in checks.items() if names),
    )
    yield from _automation(repository)


def _place(path: Sequence[str]) -> tuple[int, str, int, str]:
    """Where an asset stands: data before features before models, states in the order of a life."""
    family, name, state = path
    order = {"dataset": keys.DATASET_STATES, "model": keys.MODEL_STATES}.get(family, ())
    return ("dataset", "features", "model").index(family), name, order.index(state) if state in order else 0, state


def _diagram(graph: AssetGraph) -> Iterator[str]:
    last = next(key for key in graph.get_all_asset_keys() if list(key.path) == keys.model_key(_SHOWN_MODEL, "retraining_verdict"))
    verdict = next(key for key in graph.get_all_asset_keys() if list(key.path) == keys.model_key(_SHOWN_MODEL, "rollout_verdict"))
    shown = {last, verdict, *graph.get_ancestor_asset_keys(last), *graph.get_ancestor_asset_keys(verdict)}
    yield "```mermaid"
    yield "flowchart TD"
    for key in sorted(shown, key=lambda key: _place(key.path)):
        box = "{{%s}}" if key.path[-1].endswith("verdict") else "[%s]"
        yield f"  {_node(key.path)}{box % ('/'.join((key.path[0], key.path[-1])))}"
    for key in sorted(shown, key=lambda key: _place(key.path)):
        for up in sorted(graph.get(key).parent_keys & shown, key=lambda up: _place(up.path)):
            yield f"  {_node(up.path)} --> {_node(key.path)}"
    first = next(key for key in shown if key.path[0] == "dataset" and key.path[-1] == "ingested")
    yield f"  {_node(last.path)} -. {keys.DRIFT_SENSOR} .-> {_node(first.path)}"
    yield "```"
    yield ""


def _node(path: Sequence[str]) -> str:
    return "_".join((path[0], path[-1]))


def _automation(repository: dg.RepositoryDefinition) -> Iterator[str]:
    yield "## Jobs"
    yield ""
    names = sorted(name for name in repository.job_names if not name.startswith("__"))
    yield from _table(("job", "what it does"), ((f"`{name}`", repository.get_job(name).description or "") for name in names))
    yield "## Sensors"
    yield ""
    yield "On from the start; each can be switched off in the web UI."
    yield ""
    sensors = sorted(repository.sensor_defs, key=lambda sensor: sensor.name)
    rows = ((f"`{sensor.name}`", f"{sensor.minimum_interval_seconds} s", sensor.description or "") for sensor in sensors)
    yield from _table(("sensor", "looks every", "what it does"), rows)
    yield "## Schedules"
    yield ""
    yield "Off until they are switched on in the web UI; times are UTC."
    yield ""
    schedules = sorted(repository.schedule_defs, key=lambda schedule: schedule.name)
    yield from _table(("schedule", "cron", "job"), ((f"`{one.name}`", f"`{one.cron_schedule}`", f"`{one.job_name}`") for one in schedules))


def _commands() -> Iterator[str]:
    from typer.main import get_command

    from platform_assets.cli import app

    root: Any = get_command(app)
    yield "# The `falaj` command"
    yield ""
    yield f"{root.help} Every verb exits non-zero with one sentence where it cannot do what was asked."
    yield ""
    for name, command in _verbs(root, "falaj"):
        yield f"## {name}"
        yield ""
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option" and param.name != "help"]
        words = [name, *(_argument(one) for one in arguments), *(["[OPTIONS]"] if options else [])]
        yield f"`{' '.join(words)}`"
        yield ""
        yield " ".join((command.help or "").split())
        yield ""
        rows = [
            *((f"`{_argument(one)}`", one.help or "", _default(one)) for one in arguments),
            *((", ".join(f"`{flag}`" for flag in one.opts), one.help or "", _default(one)) for one in options),
        ]
        yield from _table(("argument or option", "meaning", "default"), rows) if rows else ()


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for verb in sorted(command.commands):
        yield from _verbs(command.commands[verb], f"{name} {verb}")


def _argument(param: Any) -> str:
    word = f"{param.name.upper()}{'...' if param.nargs != 1 else ''}"
    return word if param.required else f"[{word}]"


def _default(param: Any) -> str:
    return "required" if param.required else "" if param.default is None or param.default is False else f"`{param.default}`"


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Environment variables that a user may set. Nothing else in the environment is read; a variable set to nothing is left out."
    yield ""
    yield from _table(
        ("variable", "default", "meaning"),
        ((f"`{one.name}`", f"`{one.default}`" if one.default else "", one.meaning) for one in VARIABLES.values()),
    )
    yield "The platform sets these itself, for every process it starts: `DAGSTER_HOME` (the folder `instance` in FALAJ_HOME) and the"
    yield "switches that keep every library from calling home:"
    yield ""
    yield from _table(("variable", "value"), ((f"`{name}`", f"`{value}`") for name, value in QUIET.items()))
    yield "## A team's servers"
    yield ""
    yield "The file that FALAJ_TEAM names: TOML, a table a server ([how to run as a team](../how-to/run-as-a-team.md))."
    yield ""
    for table in TeamSpec.model_fields:
        server = spec_of(table)
        yield f"### `[{table}]`"
        yield ""
        yield " ".join((server.__doc__ or "").split())
        yield ""
        yield from _table(("key", "type", "default", "meaning"), _field_rows(server))


if __name__ == "__main__":
    sys.exit(main())
