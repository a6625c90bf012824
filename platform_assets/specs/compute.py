"""Shape of the compute catalogue: profiles to run on, what they cost, who may spend how much. One file declares all of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, StringConstraints

from platform_assets.specs.base import Jurisdiction, Name, Span, Spec

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Impact = Literal["low", "normal", "high", "critical"]
WhenSpent = Literal["hold", "refuse"]
_MEMORY = re.compile(r"^(\d+(?:\.\d+)?)(Mi|Gi|Ti)$")
_UNIT_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of `512Mi`, `4Gi` or `1Ti` (Kubernetes' binary units); anything else is a ValueError that says so."""
    match = _MEMORY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory; write for example 512Mi, 4Gi or 1Ti")
    return int(float(match[1]) * _UNIT_BYTES[match[2]])


def _check_memory(text: str) -> str:
    parse_memory(text)
    return text


Memory = Annotated[str, AfterValidator(_check_memory)]


class AcceleratorSpec(Spec):
    """GPUs of one node."""

    kind: Literal["nvidia"] = Field("nvidia", description="Whose; the cluster's resource is `<kind>.com/gpu`.")
    count: PositiveInt = Field(1, le=64, description="How many a node; one training process drives each.")


class TolerationSpec(Spec):
    """A taint that pods of this profile put up with (Kubernetes' words)."""

    key: str = Field(description="The taint's key.")
    value: str | None = Field(None, description="Its value; any value when left out.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Its effect; every effect when left out."
    )


class NetworkSpec(Spec):
    """Which interfaces training processes of several nodes speak over."""

    gloo: str | None = Field(None, description="GLOO_SOCKET_IFNAME; the library's choice when left out.")
    nccl: str | None = Field(None, description="NCCL_SOCKET_IFNAME; the library's choice when left out.")


class StorageSpec(Spec):
    """Where a node keeps what it reads again and again."""

    tier: Literal["memory", "nvme", "disk"] = Field("disk", description="Of the node-local cache; memory is /dev/shm.")
    cache: Memory = Field("20Gi", description="How much the cache of shards may hold; the longest unused go first.")


class ComputeProfile(Spec):
    """What an asset runs on, however it is started."""

    accelerator: AcceleratorSpec | None = Field(None, description="GPUs; left out, the profile has none and its pods never get one.")
    cpu: PositiveFloat = Field(description="Cores a node: threads and affinity on a laptop, request and limit on a cluster.")
    memory: Memory = Field(description="Memory a node, request and limit on a cluster.")
    precision: Literal["32-true", "bf16-mixed"] | None = Field(
        None, description="Arithmetic on this hardware; the model's own when left out."
    )
    nodes: PositiveInt = Field(1, le=1024, description="Nodes of one training.")
    processes: PositiveInt | None = Field(None, le=64, description="Training processes a node; one a GPU, or one, when left out.")
    region: str = Field("local", min_length=1, description="Where the machines stand, for people and bills.")
    jurisdiction: Jurisdiction = Field("AE", description="Whose law holds there, ISO 3166-1 alpha-2; inputs must be allowed there.")
    price_aed_per_hour: NonNegativeFloat = Field(description="Price of one node for one hour, in dirhams.")
    priority_class: str | None = Field(None, description="PriorityClass of the cluster; the model's business impact decides when left out.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that a node must have.")
    tolerations: tuple[TolerationSpec, ...] = Field((), description="Taints that are put up with.")
    tenant_quota: PositiveInt | None = Field(None, description="GPUs of this profile that one tenant may hold at once.")
    spot: bool = Field(False, description="May be taken away at any time; such a training is retried from its last checkpoint.")
    larger: ProfileName | None = Field(None, description="Profile that a retry takes after running out of memory.")
    idle_alert: Span | None = Field(None, description="Alert when a held GPU idles for longer.")
    storage: StorageSpec = Field(StorageSpec(), description="Node-local cache of shards.")
    network: NetworkSpec = Field(NetworkSpec(), description="Interfaces between nodes.")

    @property
    def gpus(self) -> int:
        """GPUs of the whole training, over all nodes: the slots of the pool that it holds."""
        return (self.accelerator.count if self.accelerator else 0) * self.nodes

    @property
    def processes_a_node(self) -> int:
        """Training processes on each node."""
        return self.processes or (self.accelerator.count if self.accelerator else 1)

    @property
    def memory_bytes(self) -> int:
        """Memory of a node in bytes."""
        return parse_memory(self.memory)


class BudgetSpec(Spec):
    """What may be spent in a calendar month (UTC)."""

    aed_per_month: NonNegativeFloat = Field(description="Dirhams a month.")
    when_spent: WhenSpent = Field("hold", description="A run that would break it is held until approval or a new month, or refused.")
    shrink_at: float = Field(0.8, gt=0, le=1, description="Share of the budget from which trials and replicas shrink.")


class TenantSpec(Spec):
    """On whose behalf models run, and what they may spend together."""

    budget: BudgetSpec | None = Field(None, description="Of all of the tenant's models together.")


class ComputeSpec(Spec):
    """The compute catalogue: one file for the whole tree."""

    default: ProfileName = Field(description="Profile of every asset that names none.")
    profiles: dict[ProfileName, ComputeProfile] = Field(min_length=1, description="Profiles by name.")
    tenants: dict[Name, TenantSpec] = Field(default_factory=dict, description="Tenants by name; one that is not listed has no budget.")
    gpus: NonNegativeInt | None = Field(
        None, description="GPUs of the pool that leases are taken from; counted on the machine when left out."
    )


class SlaSpec(Spec):
    """How much a model's runs matter, and by when they must be done."""

    impact: Impact = Field(
        "normal", description="Business impact of a late run; decides the cluster's priority class and the longest wait."
    )
    deadline: Span | None = Field(None, description="A run must have ended this long after it was asked for; nearer ones overtake.")
