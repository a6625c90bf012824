"""The pipelines of four CI systems, each run step by step with a stand-in `make` that records what it is asked and fails on demand."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

CI = Path(__file__).resolve().parents[3] / "infra" / "ci"
ORDER = ["lint", "scan", "snapshot", "test", "run", "verify", "approve", "run", "bundle", "rollback"]
BY_HAND = {"approve", "rollback"}


@dataclass(frozen=True)
class Step:
    name: str
    command: str
    by_hand: bool


def gitlab() -> list[Step]:
    found = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    jobs = {job["stage"]: job for name, job in found.items() if name != "stages" and not name.startswith(".")}
    assert sorted(jobs) == sorted(found["stages"])
    return [Step(name, "\n".join(jobs[name]["script"]), jobs[name].get("when") == "manual") for name in found["stages"]]


def github() -> list[Step]:
    jobs, done = yaml.safe_load((CI / "github-actions.yml").read_text())["jobs"], []
    while len(done) < len(jobs):  # the order is what `needs` says, not how the file is sorted
        (name,) = [name for name, job in jobs.items() if job.get("needs") == (done[-1].name if done else None)]
        command = "\n".join(step["run"] for step in jobs[name]["steps"] if "run" in step)
        done.append(Step(name, command, "environment" in jobs[name]))
    return done


def azure() -> list[Step]:
    stages, done = yaml.safe_load((CI / "azure-pipelines.yml").read_text())["stages"], []
    while len(done) < len(stages):
        (stage,) = [one for one in stages if one.get("dependsOn") == (done[-1].name if done else None)]
        *persons, job = stage["jobs"]
        assert [job.get("dependsOn")] == ([one["job"] for one in persons] or [None])
        by_hand = any(step.get("task") == "ManualValidation@1" for one in persons for step in one["steps"])
        done.append(Step(stage["stage"], "\n".join(step["script"] for step in job["steps"] if "script" in step), by_hand))
    return done


def jenkins() -> list[Step]:
    text = (CI / "Jenkinsfile").read_text()
    assert text.count("{") == text.count("}")
    stages = re.findall(r"stage\('(\w+)'\) \{\n(.*?)\n    \}\n", text, flags=re.DOTALL)
    return [Step(name, "\n".join(re.findall(r"sh '([^']*)'", body)), "input {" in body) for name, body in stages]


def play(steps: list[Step], folder: Path, *, fails: str = "", approved: bool = True) -> list[str]:
    """Run each step as its system would, in a shell that stops at the first failure; return what `make` was asked for."""
    (folder / "make").write_text(f'#!/bin/sh\necho "$1" >> {folder}/asked\n[ "$1" != "{fails}" ]\n')
    (folder / "make").chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "MODEL": "digits", "RELEASE": "digits@0123456789ab"}
    for step in steps:
        if step.by_hand and not approved:
            break
        if subprocess.run(["sh", "-ec", step.command], env=environment, check=False).returncode:
            break
    return (folder / "asked").read_text().split()


@pytest.mark.parametrize("read", [gitlab, github, azure, jenkins])
def test_a_pipeline_goes_through_every_gate_in_order_and_stops_at_the_first_that_fails(read, tmp_path):
    steps = read()
    for at, fails in enumerate(["", *dict.fromkeys(ORDER)]):
        (tmp_path / str(at)).mkdir()
        assert play(steps, tmp_path / str(at), fails=fails) == (ORDER[: ORDER.index(fails) + 1] if fails else ORDER)
    (tmp_path / "nobody").mkdir()
    assert play(steps, tmp_path / "nobody", approved=False) == ORDER[: ORDER.index("approve")]
    assert {step.name for step in steps if step.by_hand} == BY_HAND


@pytest.mark.parametrize("target", sorted(set(ORDER)))
def test_every_target_that_they_name_is_in_the_makefile(target, checkout):
    command = ["make", "--dry-run", target, "MODEL=digits", "MODELS=digits", "RELEASE=digits@0123456789ab"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ".venv/bin/" in done.stdout


@pytest.mark.parametrize(
    ("target", "missing"), [("verify", "MODEL=NAME"), ("approve", "RELEASE=MODEL@VERSION"), ("rollback", "MODEL=NAME")]
)
def test_a_target_without_its_argument_says_which(target, missing, checkout):
    done = subprocess.run(["make", "--dry-run", target], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{missing} is missing" in done.stderr
