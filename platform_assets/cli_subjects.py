"""Commands about persons: erasure and access. Each a thin call, as in `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from platform_assets.cli_options import console
from resources.settings import read_settings

subject_app = typer.Typer(no_args_is_help=True, help="Persons whose data is held: answer an access request.")


def erase(
    subject: Annotated[
        str | None, typer.Option(help="Value of the dataset's `subject` column; left out, what was begun is finished.")
    ] = None,
) -> None:
    """Erase a person from all table versions, online values, logs, queues, training sets; prove it; name the models that learnt from it."""
    from platform_assets.main_job import subject_verbs

    count = 0
    for done in subject_verbs.erase_subject(read_settings(), subject):
        count += 1
        removed = sum(done["removed"].values())
        console.print(
            f"Erasure {done['mark'][:12]}: {sum(done['rows'].values())} rows of theirs, {removed} found and removed in all.",
            highlight=False,
        )
        for model, versions in done["models"].items():
            console.print(f"{model} learnt from them in {', '.join(versions)}; the policy is asked for a retraining.", highlight=False)
        console.print(f"Proof: {done['proof']}.", highlight=False)
    if not count:
        console.print("No erasure is under way.")


@subject_app.command("export")
def export(
    subject: Annotated[str, typer.Argument(metavar="ID", help="Value of the dataset's `subject` column.")],
    out: Annotated[Path, typer.Option(help="New file, of mode 0600.")] = Path("subject.json"),
) -> None:
    """Write everything that is held of a person as JSON."""
    from platform_assets.main_job import subject_verbs

    counts = subject_verbs.export_subject(read_settings(), subject, file=out)
    console.print(f"{sum(counts.values())} rows in {len(counts)} tables: {out}", soft_wrap=True, highlight=False)
