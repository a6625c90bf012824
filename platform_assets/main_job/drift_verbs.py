"""The verbs of `falaj drift`: tables in, figures and a picture out. Deciding and judging is the stages'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from platform_assets.errors import Fault, SpecError
from platform_assets.main_job.replay import compare
from platform_assets.specs.model import PayoffSpec
from platform_assets.specs.record_json import read_record
from platform_assets.specs.records import FeatureSchema
from platform_assets.specs.strict_yaml import read_yaml
from platform_assets.stages.replay.picture import draw_replay
from platform_assets.stages.replay.stream import open_stream
from resources.file_reader import read_table
from resources.home import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from resources.settings import Settings


def read_policy(path: Path | None) -> PayoffSpec:
    """Read a policy file; the default policy where none is named. Raises SpecError, with every fault."""
    if path is None:
        return PayoffSpec()
    try:
        found = read_yaml(path)
        return PayoffSpec.model_validate({} if found is None else found)
    except OSError as error:
        raise SpecError(
            [Fault(str(path), "", f"cannot be read ({error}); name a YAML file, for example with the line budget: 0.2")]
        ) from error
    except ValidationError as error:
        known = ", ".join(PayoffSpec.model_fields)
        faults = [
            Fault(str(path), ".".join(map(str, fault["loc"])), f"{fault['msg']}, found {fault['input']!r}; fields are {known}")
            for fault in error.errors()
        ]
        raise SpecError(faults) from error
    except ValueError as error:
        raise SpecError([Fault(str(path), "", str(error))]) from error


def replay_table(
    table: str, *, time: str, target: str, policy: Path | None, without: Sequence[str], window_rows: int | None, history: int,
    console: Console,
) -> tuple[dict[str, Any], bytes]:  # fmt: skip
    """Replay a policy over a table; return the figures and the picture."""
    spec = read_policy(policy)
    stream = open_stream(read_table(table), time=time, target=target, without=without, window_rows=window_rows, history_windows=history)
    with console.status("replaying", spinner="dots") as bar:
        done = iter(range(1, stream.windows + 1))
        value = compare(stream, spec, tick=lambda: bar.update(f"replaying: {next(done)} of {stream.windows - history} models trained"))
    value = {"table": table, "time": time, "target": target, **value, "sentence": _say(value)}
    return value, draw_replay(value)


def report_tables(settings: Settings, model: str, *, reference: str, current: str) -> dict[str, Any]:
    """Hold one table against another as a model's live release would; without a release every column counts."""
    from platform_assets.main_job.operations import open_parts
    from platform_assets.main_job.releases import recorded_live
    from platform_assets.stages.monitoring.profile import read_profile
    from platform_assets.stages.monitoring.tables import compare_tables

    parts = open_parts(settings, model)
    digest = recorded_live(parts.audit, model)
    schema, importance = None, None
    if digest is not None:
        release = parts.releases.open(digest)
        schema = read_record(FeatureSchema, release["schema.json"])
        importance = read_profile(release).importance
    past, now = read_table(reference), read_table(current)
    spec = parts.catalogue.models[model].monitoring
    found = compare_tables(past, now, spec=spec, schema=schema, importance=importance)
    return {
        "model": model, "release": digest and digest[:12], "reference": reference, "current": current,
        "rows": {"reference": past.num_rows, "current": now.num_rows}, "left_out": found.left_out, "report": found.report,
    }  # fmt: skip


def write_page(path: Path, value: dict[str, Any]) -> None:
    """Write what `report_tables` found as one page, whole or not at all."""
    from platform_assets.stages.monitoring.page import draw_page

    page = draw_page(value["report"], title=f"{value['model']}: {value['current']} against {value['reference']}")
    write_atomically(path, page.encode())


def write_picture(path: Path, picture: bytes) -> None:
    """Write a picture whole, or not at all."""
    write_atomically(path, picture)


def _say(value: dict[str, Any]) -> str:
    made = f"{value['trainings']} trainings and {value['refreshes']} refreshes at {value['cost']:.0%} of what always retraining costs"
    if value["gain"] is None:
        return f"Nothing to win: always retraining is no better than never on this table. The policy made {made}."
    plain = f"a plain schedule of that cost wins {value['plain_gain']:.0%}"
    return f"The policy wins {value['gain']:.0%} of what always retraining wins over never, with {made}; {plain}."
