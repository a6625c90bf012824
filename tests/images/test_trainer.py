"""The trainer image as a TrainJob's node runs it: a small training of two processes, read-only and without capabilities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from podman import CONFINED, USER, Podman, hand_over

from tests.unit.stages.training.starts import write_inputs

AT = "/var/lib/falaj/trainings/by-hand"  # infra/kubernetes/components/several-nodes/train-job.yaml


@pytest.fixture(scope="module")
def image(podman: Podman, checkout: Path) -> Iterator[str]:
    with podman.built(checkout, "trainer") as name:
        yield name


def test_a_training_of_two_processes_finishes_in_it(podman: Podman, image: str, folder: Path) -> None:
    write_inputs(folder / "by-hand")
    hand_over(folder / "by-hand")
    confined = (*CONFINED, "--memory=3g", "--cpus=2", "--network=none", f"--volume={folder / 'by-hand'}:{AT}", "--tmpfs=/tmp")
    assert podman("run", "--rm", *confined, image, "id", "-u") == str(USER)
    told = (f"--data={AT}/data", f"--spec={AT}/spec.json", f"--run={AT}/run.json", f"--out={AT}/out")
    train = ("torchrun", "--nproc-per-node=2", "--max-restarts=3", "-m", "--", "platform_assets.stages.training", *told)
    podman("run", "--rm", "--env=OMP_NUM_THREADS=1", *confined, image, *train)
    ended = json.loads((folder / "by-hand" / "out" / "exit.json").read_text())
    assert (ended["outcome"], ended["code"]) == ("finished", 0)


def test_dagster_is_not_in_it_and_asked_for_nothing_it_says_what_it_takes(podman: Podman, image: str) -> None:
    here = ("run", "--rm", *CONFINED, "--network=none", "--tmpfs=/tmp", image)
    assert "--data DATA" in podman(*here)
    assert podman(*here, "python", "-c", "import importlib.util as of; print(of.find_spec('dagster'))") == "None"
