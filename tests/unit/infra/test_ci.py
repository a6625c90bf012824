"""The pipelines of four CI systems, each run step by step with a stand-in `make` that records what it is asked and fails on demand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

CI = Path(__file__).resolve().parents[3] / "infra" / "ci"
ORDER = ["lint", "scan", "snapshot", "test", "images", "publish", "run", "gate", "verify", "apply", "approve", "run", "bundle", "rollback"]
BY_HAND = {"approve", "rollback"}
BAD = "{kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: c:latest}]}}"


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
    environment |= {"BASE": "b:1", "REGISTRY": "r.example", "VERSION": "1", "OVERLAY": "onprem", "KEY": "k"}
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
    command += ["BASE=b:1", "REGISTRY=r.example", "VERSION=1", "OVERLAY=onprem", "CONTEXT=staging", "KEY=k"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ".venv/bin/" in done.stdout or "infra/" in done.stdout


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("verify", "MODEL=NAME"), ("gate", "MODEL=NAME"), ("approve", "RELEASE=MODEL@VERSION"), ("rollback", "MODEL=NAME"),
        ("images", "BASE=NAME:TAG"), ("publish", "REGISTRY=HOST"), ("apply", "OVERLAY=NAME"),
    ],
)  # fmt: skip
def test_a_target_without_its_argument_says_which(target, missing, checkout):
    done = subprocess.run(["make", "--dry-run", target], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{missing} is missing" in done.stderr


def stand_ins(folder: Path, **programs: str) -> dict[str, str]:
    """Programs that write down what they are asked, and answer as told (a line of shell)."""
    for name, answer in programs.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/asked\n{answer}\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_an_image_is_signed_by_the_digest_that_it_was_pushed_under(tmp_path, checkout):
    (tmp_path / "cosign.key").touch()
    environment = stand_ins(tmp_path, podman='printf sha256:%064d 7 > "$4"', cosign="")
    command = [checkout / "infra" / "docker" / "publish.sh", "r.example", "1.2", tmp_path / "cosign.key"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digest = f"@sha256:{7:064d}"
    assert done.stdout.split() == [f"r.example/falaj/{kind}{digest}" for kind in ("inference", "platform", "trainer")]
    signed = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("cosign")]
    assert all(f"--key {tmp_path}/cosign.key" in line and digest in line and "--tlog-upload=false" in line for line in signed)
    assert len(signed) == 3


def test_what_cannot_be_signed_stops_the_pipeline(tmp_path, checkout):
    environment = stand_ins(tmp_path, podman='printf sha256:1 > "$4"', cosign="exit 1")
    script = checkout / "infra" / "docker" / "publish.sh"
    (tmp_path / "cosign.key").touch()
    assert subprocess.run([script, "r", "1", tmp_path / "cosign.key"], env=environment, check=False).returncode == 1
    done = subprocess.run([script, "r", "1", tmp_path / "none"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "right would be REGISTRY VERSION KEY" in done.stderr


KUBECTL = """case "$*" in
kustomize*) cat {rendered} ;;
*"get namespaces"*) echo falaj-x ;;
*"get deployments"*) echo deployment.apps/code ;;
*"rollout status"*) {status} ;;
esac"""


@pytest.mark.parametrize(("text", "status", "code"), [("kind: Namespace", "true", 0), ("kind: Namespace", "exit 1", 1), (BAD, "true", 1)])
def test_an_overlay_that_breaks_a_rule_is_not_applied_and_one_that_does_not_come_up_is_a_failure(text, status, code, tmp_path, checkout):
    (tmp_path / "rendered").write_text(text)
    environment = stand_ins(tmp_path, kubectl=KUBECTL.format(rendered=tmp_path / "rendered", status=status))
    command = [checkout / "infra" / "kubernetes" / "apply.sh", "onprem", "staging"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert ("--context staging apply --server-side" in asked) == (text != BAD)
    assert "image: found 'c:latest'" in done.stdout or text != BAD


def test_an_overlay_that_is_not_there_is_named_with_those_that_are(tmp_path, checkout):
    done = subprocess.run([checkout / "infra" / "kubernetes" / "apply.sh", "moon", "staging"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "found 'moon staging'" in done.stderr
    assert "onprem" in done.stderr


@pytest.mark.parametrize(
    ("file", "schema"),
    [("gitlab-ci.yml", "gitlab-ci"), ("azure-pipelines.yml", "azure-pipelines"), ("github-actions.yml", "github-workflows")],
)
def test_a_pipeline_is_what_its_system_publishes_as_right(file, schema, tmp_path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    good = subprocess.run([*command, CI / file], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout
    (tmp_path / file).write_text((CI / file).read_text().replace("script:", "scirpt:").replace("runs-on:", "run-on:"))
    assert subprocess.run([*command, tmp_path / file], capture_output=True, check=False).returncode == 1
