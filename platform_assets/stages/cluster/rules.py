"""The rules: each takes what was rendered and yields what it refuses. Together they are `judge`.

Pod Security `restricted` (kubernetes.io/docs/concepts/security/pod-security-standards) as far as our pods could break it, and what
a cluster of several tenants under one law needs beyond it. Labels: `falaj.ae/tenant` and `falaj.ae/jurisdiction` on a namespace say
whose it is and under whose law, `falaj.ae/sensitive` that its work stays on the premises; nodes say `falaj.ae/jurisdiction` and
`falaj.ae/site`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence

from platform_assets.errors import Fault
from platform_assets.stages.cluster.workloads import Manifest, Workload, name_of, namespace_of, workloads

TENANT, JURISDICTION, SENSITIVE, SITE = "falaj.ae/tenant", "falaj.ae/jurisdiction", "falaj.ae/sensitive", "falaj.ae/site"
PREMISES = "onprem"
ENVIRONMENT, TEAM = "falaj-environment", "falaj-team"  # ConfigMaps that every process of a tenant reads
_PINNED = re.compile(r"(?:@sha256:[0-9a-f]{64}|:(?!latest$)[\w][\w.-]*)$")
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def judge(manifests: Sequence[Manifest]) -> list[Fault]:
    """Return all that may not be applied; nothing where all is well."""
    return [fault for rule in RULES for fault in rule(manifests)]


def pods_are_confined(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """No pod or container has more of its node than it needs."""
    for work in workloads(manifests):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if work.pod.get(field):
                yield Fault(work.where, field, "a pod shares nothing with its node; leave it out")
        for volume in work.pod.get("volumes") or ():
            if "hostPath" in volume:
                yield Fault(work.where, f"volumes.{volume.get('name')}", "a pod mounts no folder of its node; use a PersistentVolumeClaim")
        outer = work.pod.get("securityContext") or {}
        for path, container in work.containers():
            yield from _confined(work.where, path, outer, container.get("securityContext") or {})


def _confined(where: str, path: str, outer: Manifest, own: Manifest) -> Iterator[Fault]:
    def inherited(field: str) -> object:
        return own.get(field, outer.get(field))

    wanted = {
        "privileged": (not own.get("privileged"), "leave it out"),
        "allowPrivilegeEscalation": (own.get("allowPrivilegeEscalation") is False, "write false"),
        "capabilities": (
            "ALL" in ((own.get("capabilities") or {}).get("drop") or ()) and not (own.get("capabilities") or {}).get("add"),
            "write {drop: [ALL]}, and add none",
        ),
        "readOnlyRootFilesystem": (own.get("readOnlyRootFilesystem") is True, "write true, and mount an emptyDir where it writes"),
        "runAsNonRoot": (inherited("runAsNonRoot") is True and inherited("runAsUser") != 0, "write true, and a user that is not 0"),
        "seccompProfile": (
            (inherited("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),  # type: ignore[attr-defined]
            "write {type: RuntimeDefault}",
        ),
    }
    for field, (holds, right) in wanted.items():
        if not holds:
            yield Fault(where, f"{path}.securityContext.{field}", f"found {inherited(field)!r}; {right}")


def containers_have_limits(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Every container says how much CPU and memory it asks for and may have."""
    for work in workloads(manifests):
        for path, container in work.containers():
            told = container.get("resources") or {}
            for side in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if what not in (told.get(side) or {}):
                        yield Fault(work.where, f"{path}.resources.{side}", f"there is no {what}; without it one pod may starve its node")


def images_are_pinned(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """An image is named by version or digest: the same manifest runs the same code tomorrow."""
    for work in workloads(manifests):
        for path, container in work.containers():
            image = str(container.get("image", ""))
            if not _PINNED.search(image):
                yield Fault(work.where, f"{path}.image", f"found {image!r}; name a version or a digest, never none and never latest")


def tenants_have_quotas(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """A tenant's pods stand in a namespace that is a tenant's, with a quota and with limits for what names none."""
    tenants = {_name(one) for one in _of_kind(manifests, "Namespace") if TENANT in _labels(one)}
    for work in workloads(manifests):
        if work.namespace not in tenants:
            yield Fault(
                work.where, "metadata.namespace", f"{work.namespace!r} is no tenant's (label {TENANT}); every pod here is a tenant's"
            )
            continue
        for kind in ("ResourceQuota", "LimitRange"):
            if not any(namespace_of(one) == work.namespace for one in _of_kind(manifests, kind)):
                yield Fault(work.where, "metadata.namespace", f"{work.namespace!r} has no {kind}; one tenant could take the whole cluster")


def tenants_are_fenced(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Pod Security `restricted` is enforced in each tenant's namespace, by the cluster itself."""
    for one in _of_kind(manifests, "Namespace"):
        found = _labels(one).get("pod-security.kubernetes.io/enforce")
        if TENANT in _labels(one) and found != "restricted":
            yield Fault(name_of(one), "metadata.labels", f"pod-security.kubernetes.io/enforce is {found!r}; write restricted")


def work_stays_in_its_jurisdiction(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """A pod can only come onto nodes under its namespace's law; one of a sensitive tenant only onto those on the premises."""
    spaces = {_name(one): _labels(one) for one in _of_kind(manifests, "Namespace")}
    for work in workloads(manifests):
        labels = spaces.get(work.namespace, {})
        allowed = {JURISDICTION: labels.get(JURISDICTION, ""), **({SITE: PREMISES} if labels.get(SENSITIVE) == "true" else {})}
        for key, value in allowed.items():
            found = nodes_of(work, key)
            if found is None or not found <= {value}:
                there = "any node" if found is None else f"nodes with {key} in {sorted(found)}"
                yield Fault(
                    work.where, "affinity", f"it may come onto {there}; its namespace allows {key} {value or 'nowhere (it has no label)'}"
                )


def nodes_of(work: Workload, key: str) -> set[str] | None:
    """Values of a node's label that a pod puts up with; None where it does not ask for one.

    A term of a node affinity is an alternative: one that leaves the label open opens all.
    """
    selected = (work.pod.get("nodeSelector") or {}).get(key)
    affinity = (work.pod.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    options = [_values(term, key) for term in terms]
    asked = None if not options or any(one is None for one in options) else set().union(*(one for one in options if one is not None))
    if selected is None:
        return asked
    return {selected} if asked is None else asked & {selected}


def _values(term: Manifest, key: str) -> set[str] | None:
    found: set[str] | None = None
    for match in term.get("matchExpressions") or ():
        if match.get("key") == key and match.get("operator") == "In":
            values = set(match.get("values") or ())
            found = values if found is None else found & values
    return found


def networks_are_closed(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Each namespace with pods denies all traffic first, and no policy opens a port, or all of them, to everybody."""
    policies = list(_of_kind(manifests, "NetworkPolicy"))
    closed = {namespace_of(one) for one in policies if _denies_all(one.get("spec") or {})}
    for namespace in sorted({work.namespace for work in workloads(manifests)} - closed):
        yield Fault(f"Namespace/{namespace}", "NetworkPolicy", "none denies all pods both ways first; what is not named would be open")
    for one in policies:
        for way, peer in (("ingress", "from"), ("egress", "to")):
            for at, rule in enumerate((one.get("spec") or {}).get(way) or ()):
                if not rule.get(peer) or any(_is_everybody(found) for found in rule[peer]):
                    yield Fault(
                        name_of(one), f"spec.{way}[{at}].{peer}", "it is open to everybody; name pods, namespaces or a range of addresses"
                    )


def _denies_all(spec: Manifest) -> bool:
    opens = spec.get("ingress") or spec.get("egress")
    everybody = not (spec.get("podSelector") or {})
    return everybody and not opens and set(spec.get("policyTypes") or ()) == {"Ingress", "Egress"}


def _is_everybody(peer: Manifest) -> bool:
    if "ipBlock" in peer:
        return (peer["ipBlock"] or {}).get("cidr") in _EVERYWHERE
    return not peer or ("namespaceSelector" in peer and not peer["namespaceSelector"] and not peer.get("podSelector"))


def rights_are_named(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """A role lists what it allows; a star would also allow what is not there yet."""
    for kind in ("Role", "ClusterRole"):
        for one in _of_kind(manifests, kind):
            for at, rule in enumerate(one.get("rules") or ()):
                for field in ("apiGroups", "resources", "verbs"):
                    if "*" in (rule.get(field) or ()):
                        yield Fault(name_of(one), f"rules[{at}].{field}", "found '*'; list what is needed")


def secrets_are_elsewhere(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """No secret value stands in a manifest: those are read by whoever reads the repository."""
    for one in _of_kind(manifests, "Secret"):
        if one.get("data") or one.get("stringData"):
            yield Fault(name_of(one), "data", "a secret's value stands in the manifest; use an ExternalSecret")


def state_is_on_servers(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Nothing keeps an SQLite database on a volume that several nodes mount: its locks are not theirs."""
    shared = {
        (namespace_of(one), _name(one))
        for one in _of_kind(manifests, "PersistentVolumeClaim")
        if set((one.get("spec") or {}).get("accessModes") or ()) & {"ReadWriteMany", "ReadOnlyMany"}
    }
    for work in workloads(manifests):
        claims = {(work.namespace, (one.get("persistentVolumeClaim") or {}).get("claimName")) for one in work.pod.get("volumes") or ()}
        if claims & shared:
            for path, container in work.containers():
                told = [*(container.get("args") or ()), *(one.get("value", "") for one in container.get("env") or ())]
                if any("sqlite:" in str(text) for text in told):
                    yield Fault(work.where, path, "it keeps an SQLite database on a volume of several nodes; name the team's PostgreSQL")
    for one in _of_kind(manifests, "ConfigMap"):
        if _name(one) == ENVIRONMENT and (one.get("data") or {}).get("FALAJ_ENV") != "team":
            found = (one.get("data") or {}).get("FALAJ_ENV")
            yield Fault(name_of(one), "data.FALAJ_ENV", f"found {found!r}; write team, and name its servers in the tenant's team.toml")


def servers_are_a_tenants_own(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """No two tenants keep their state in one database or one place of the store: each would see the other's."""
    owners: dict[str, str] = {}
    for one in _of_kind(manifests, "ConfigMap"):
        if _name(one) != TEAM:
            continue
        try:
            told = tomllib.loads(str((one.get("data") or {}).get("team.toml", "")))
        except tomllib.TOMLDecodeError as error:
            yield Fault(name_of(one), "data.team.toml", f"it is no TOML: {error}")
            continue
        here = namespace_of(one)
        for table in ("postgresql", "store"):
            url = (told.get(table) or {}).get("url")
            if url is not None and (owner := owners.setdefault(url, here)) != here:
                yield Fault(name_of(one), f"data.team.toml.{table}.url", f"{url} is that of {owner}; each tenant has one of its own")


RULES: tuple[Callable[[Sequence[Manifest]], Iterator[Fault]], ...] = (
    pods_are_confined, containers_have_limits, images_are_pinned, tenants_have_quotas, tenants_are_fenced, work_stays_in_its_jurisdiction,
    networks_are_closed, rights_are_named, secrets_are_elsewhere, state_is_on_servers, servers_are_a_tenants_own,
)  # fmt: skip


def _of_kind(manifests: Sequence[Manifest], kind: str) -> Iterator[Manifest]:
    return (one for one in manifests if one.get("kind") == kind)


def _labels(manifest: Manifest) -> Manifest:
    return (manifest.get("metadata") or {}).get("labels") or {}


def _name(manifest: Manifest) -> str:
    return str((manifest.get("metadata") or {}).get("name", ""))
