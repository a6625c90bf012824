"""What befell a step's pod, told from what the cluster says of it, and whether the step is tried again for it. Pure rules.

Sources: kubernetes.io/docs/concepts/workloads/pods/disruptions (evicted, preempted, lost with a node), the reasons that a kubelet gives a
waiting container (pkg/kubelet/images/types.go), and the reason OOMKilled of a container that the kernel ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A container that waits for one of these may wait for ever: the kubelet goes on asking, and nobody is told.
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_NO_CONFIG = "CreateContainerConfigError"
_DISRUPTED = ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_LONGEST = 200  # characters of what a cluster says


@dataclass(frozen=True)
class PodSeen:
    """A pod as far as it says how it goes: `waiting` and `terminated` are a container's reasons, `disrupted` the cluster's own mark.

    `created` is in seconds since the epoch, cut to whole ones as Kubernetes does.
    """

    name: str
    created: float = 0.0
    image: str = ""
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    waiting: str = ""
    waiting_message: str = ""
    terminated: str = ""
    exit_code: int | None = None


@dataclass(frozen=True)
class PodEnd:
    """What befell a pod, in a sentence; whether its step is tried `again`, None where the step's own retry policy says."""

    sentence: str
    again: bool | None
    out_of_memory: bool = False


def what_keeps(pods: Sequence[PodSeen]) -> PodSeen | None:
    """Return the pod that waits for what may never come; None where none does."""
    return next((pod for pod in pods if pod.waiting in (*_NO_IMAGE, _NO_CONFIG)), None)


def never_started(pod: PodSeen, *, waited_seconds: float) -> PodEnd:
    """Say that a pod was waited for long enough: another one would wait for the same."""
    if pod.waiting == _NO_CONFIG:
        what, right = "Its container could not be made", "a ConfigMap and a Secret that are in its namespace"
    else:
        what, right = f"Its image {pod.image} could not be pulled", "an image that the registry has and the namespace may pull"
    told = ": ".join(part for part in (pod.waiting, _line(pod.waiting_message)) if part)
    return PodEnd(f"{what} within {waited_seconds:.0f} s ({told}); name {right}, and start the run again.", again=False)


def how_ended(pods: Sequence[PodSeen]) -> PodEnd:
    """Say what befell a job that has failed or is gone, from what is left of its pods."""
    if not pods:
        return PodEnd("Its pod is gone: its node was lost, or somebody deleted it.", again=True)
    pod = pods[-1]
    if pod.reason in _DISRUPTED or pod.disrupted:
        return PodEnd(f"Its pod {pod.name} was taken from its node ({_line(pod.message) or _line(pod.reason) or 'disrupted'}).", again=True)
    if pod.terminated == "OOMKilled":
        return PodEnd(f"Its pod {pod.name} was killed for want of memory.", again=None, out_of_memory=True)
    code = "an unknown exit status" if pod.exit_code is None else f"exit status {pod.exit_code}"
    why = _line(pod.terminated) or "no reason given"
    return PodEnd(f"Its pod {pod.name} ended with {code} ({why}) before the step could say why.", again=None)


def ended_in_silence(pods: Sequence[PodSeen], *, began: float | None) -> PodEnd:
    """Say what befell a job that is complete while its step has no end; `began` is when the step did, in seconds since the epoch.

    A job controller before Kubernetes 1.26 counts a pod that is taken off a lost node, or deleted, as neither good nor bad and puts another
    in its place. Dagster begins no attempt twice: that pod ends well and has done nothing.
    """
    if began is not None and any(pod.created + 1 > began for pod in pods):
        return PodEnd(
            "Its pod was lost with its node, or deleted, and the one that was put in its place does not begin it again.", again=True
        )
    return how_ended(pods)


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST].rstrip(".")
