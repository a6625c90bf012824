"""What a step is billed: its profile's GPUs where there are any, else the CPU that it works on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline.tiny import TinyHome

from platform_assets.components.step import held_on
from platform_assets.specs.compute import ComputeSpec
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
