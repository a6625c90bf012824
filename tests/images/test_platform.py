"""The platform image as a tenant's pods run it: code location, daemon, a run's pod and a pod a step, read-only and without capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from images.tenant_site import Site, open_site
from podman import Podman, open_way
from postgres_process import own_database

from platform_assets.specs.team import StoreSpec

JOB = "tiny_cancellations__train"


@pytest.fixture(scope="module")
def images(podman: Podman, checkout: Path) -> Iterator[dict[str, str]]:
    with podman.built(checkout, "platform") as platform, podman.built(checkout, "inference") as inference:
        yield {"platform": platform, "inference": inference}


@pytest.fixture(scope="module")
def servers(postgres: str, redis_server: str, s3_server: StoreSpec) -> dict[str, Any]:
    return {"database": own_database(postgres), "redis": redis_server, "store": s3_server}


@pytest.fixture(scope="module")
def site(
    images: dict[str, str], servers: dict[str, Any], podman: Podman, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    open_way(folder)
    with open_site(folder, podman, checkout, images=images, **servers) as found:
        yield found


def test_a_model_is_trained_released_and_deployed_in_pods_of_it(site: Site) -> None:
    assert site.complete("code", "servers") == 0, site.cluster.logs()  # the init container
    for workload, name in (("rollout", "rollout"), ("code", "code"), ("daemon", "daemon")):
        site.start(workload, name)
    site.wait("code", "code", "dagster", "api", "grpc-health-check", f"--port={site.grpc_port}")
    asked = site.ask("daemon", "daemon", "dagster", "job", "launch", f"--job={JOB}", "--workspace=/opt/falaj/cluster/workspace.yaml")
    assert asked.returncode == 0, asked.stderr
    run = site.finish()
    assert run.status == dg.DagsterRunStatus.SUCCESS, site.cluster.logs()
    with site.instance() as instance:
        ended = [stats for stats in instance.get_run_step_stats(run.run_id) if stats.status.value == "SUCCESS"]
    step_pods = site.ended_pods("step_worker")
    assert len(step_pods) == len(ended) > 10
    assert {pod["status"]["phase"] for pod in step_pods} == {"Succeeded"}  # each at its first try
    assert [file.name for file in site.cluster.folder.glob("dagster-*.log") if "Traceback" in file.read_text()] == []
    printed = site.cluster.volumes.claim("falaj-home") / "instance" / "storage" / run.run_id / "compute_logs"
    assert len(list(printed.glob("*.out"))) == len(step_pods)  # the web server's pod shows them
