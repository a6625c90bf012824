"""What the API server says of a job's pods, as the rules of `stages.placement.pod_ends` want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from platform_assets.stages.placement.pod_ends import PodSeen

if TYPE_CHECKING:
    from dagster_k8s.client import DagsterKubernetesClient


def see_pods(client: DagsterKubernetesClient, job: str, namespace: str) -> list[PodSeen]:
    """Ask for the pods of a job."""
    return [_see(pod) for pod in client.get_pods_in_job(job, namespace)]


def _see(pod: Any) -> PodSeen:
    status = pod.status
    container = (status.container_statuses or [None])[0]
    waiting, ended = (container.state.waiting, container.state.terminated) if container and container.state else (None, None)
    return PodSeen(
        name=pod.metadata.name,
        created=pod.metadata.creation_timestamp.timestamp(),
        image=pod.spec.containers[0].image or "",
        reason=status.reason or "",
        message=status.message or "",
        disrupted=any(one.type == "DisruptionTarget" and one.status == "True" for one in status.conditions or ()),
        waiting=(waiting.reason or "") if waiting else "",
        waiting_message=(waiting.message or "") if waiting else "",
        terminated=(ended.reason or "") if ended else "",
        exit_code=ended.exit_code if ended else None,
    )
