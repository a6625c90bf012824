"""What a step is billed, and what becomes of it when a server is away, or something is wrong."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pipeline.tiny import TinyHome

from platform_assets.components import step as steps
from platform_assets.components.step import Outcome, Step, build_step, held_on
from platform_assets.errors import DataError, OutageError
from platform_assets.specs.compute import ComputeSpec
from platform_assets.stages.placement.binding import Binding
from resources import machine

PROFILES = {
    "cpu": {"cpu": 2, "memory": "4Gi", "price_aed_per_hour": 0.5},
    "gpu": {"cpu": 8, "memory": "64Gi", "price_aed_per_hour": 12, "nodes": 2, "accelerator": {"count": 4}},
}


@pytest.mark.parametrize(
    ("profile", "gpus_here", "declared", "billed"),
    [("gpu", 4, None, (8, 2, 12)), ("gpu", 0, None, (0, 1, 0.5)), ("gpu", 0, 8, (8, 2, 12)), ("cpu", 4, None, (0, 1, 0.5))],
)
def test_a_profile_without_its_gpus_costs_what_the_default_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, profile: str, gpus_here: int, declared: int | None, billed: tuple[int, int, float]
) -> None:
    found = replace(machine.look_at_machine(), gpus=tuple(f"GPU {number}" for number in range(gpus_here)))
    monkeypatch.setattr(machine, "look_at_machine", lambda: found)
    parts = TinyHome(tmp_path).parts
    compute = ComputeSpec.model_validate({"default": "cpu", "profiles": PROFILES, "gpus": declared})
    asked = held_on(profile, replace(parts, catalogue=replace(parts.catalogue, compute=compute)))
    assert (asked.gpus, asked.nodes, asked.price_aed_per_hour) == billed
    assert asked.profile == profile


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ([OutageError("the store is away")] * 2, True),
        ([OSError(errno.ENOSPC, "No space left on device")], True),
        ([OutageError("the store is away")] * 9, False),
        ([DataError("a column is missing")], False),
        ([ValueError("x")], False),
    ],
)
def test_a_step_is_tried_again_while_something_is_away_and_fails_at_once_where_something_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, errors: list[Exception], outcome: bool
) -> None:
    monkeypatch.setattr(steps, "OUTAGE_SECONDS", 0)
    parts, left, tried = TinyHome(tmp_path / "home").parts, list(errors), []

    def work(step: Step) -> Outcome:
        tried.append(step.context.run_id)
        if left:
            raise left.pop(0)
        return Outcome({"made": True}, "1")

    key = ["dataset", "tiny_bookings", "ingested"]
    made = build_step(
        key, work, deps=[], group="g", description="d", owner="team:x", kinds=set(), code_version="1", binding=Binding({}, None)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([made], instance=instance, resources={"parts": parts}, raise_on_error=False)
        retried = instance.all_logs(done.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert done.success is outcome
    away = isinstance(errors[0], OSError | OutageError)
    assert len(tried) == (min(len(errors), steps.OUTAGE_TRIES) + 1 if away else 1)
    assert len(retried) == len(tried) - 1
    assert all(str(errors[0]) in str(entry.dagster_event.event_specific_data.error) for entry in retried)


def test_a_runs_launch_is_written_once_and_looked_for_once_by_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, looked = TinyHome(tmp_path / "home").parts, list[str | None]()
    entries = type(parts.audit).entries

    def look(audit: object, *, subject: str | None = None, **how: int | None) -> list[dict[str, Any]]:
        looked.append(subject)
        return entries(audit, subject=subject, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(type(parts.audit), "entries", look)
    made = [
        build_step(
            ["dataset", "tiny_bookings", state], lambda _: Outcome({"made": True}, "1"), deps=[], group="g", description="d", owner="team:x",
            kinds=set(), code_version="1", binding=Binding({}, None),
        )
        for state in ("ingested", "validated", "protected")
    ]  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [dg.materialize(made, instance=instance, resources={"parts": parts}).run_id for _ in range(2)]
    assert looked == [f"run/{run}" for run in runs]
    assert [(one["action"], one["subject"]) for one in entries(parts.audit)] == [("launch", f"run/{run}") for run in runs]  # type: ignore[arg-type]
