"""What the commands share: where they print, arguments that several take, the file they write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

console = Console(width=None if sys.stdout.isatty() else 150)

Model = Annotated[str, typer.Argument(help="Name of a declared model.")]
Version = Annotated[str | None, typer.Option(help="Version; the live one when left out.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON to this file.")]


def write(path: Path | None, value: Any) -> None:
    """Write the result where a file was asked for."""
    if path is not None:
        from platform_assets.main_job.run import write_json

        write_json(path, value)
