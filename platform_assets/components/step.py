"""One shape for every asset: read pinned inputs, do one stage's work, record what was made. No stage's own logic belongs here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dagster as dg

from platform_assets.errors import FalajError, StateError
from platform_assets.logs import bound, event
from platform_assets.specs.record_json import from_mapping, to_json
from platform_assets.specs.words import listed
from platform_assets.stages.admission.payer import asked_of, payer_of, stage_of
from platform_assets.stages.placement.resolution import Placement, describe, resolve
from platform_assets.tracing import span, start_tracing
from resources.dagster_instance.gate import MODEL_TAG, launcher_of
from resources.dagster_instance.traces import TRACE_TAG
from resources.outages import is_outage

if TYPE_CHECKING:
    from pydantic import BaseModel

    from platform_assets import ports
    from platform_assets.specs.spending import Asked
    from platform_assets.stages.placement.binding import Binding
    from resources.parts import Parts

RECORD = "falaj/record"
OUTAGE_TRIES, OUTAGE_SECONDS = 4, 30  # a step that a server or the disk failed is tried again for two minutes, then it fails
T = TypeVar("T")


def fingerprint(*values: object) -> str:
    """Hash of specs, records and versions: equal inputs, equal work."""
    return hashlib.sha256("\n".join(_canonical(value) for value in values).encode()).hexdigest()


def _canonical(value: object) -> str:
    if hasattr(value, "model_dump_json"):
        return cast("BaseModel", value).model_dump_json()
    if hasattr(value, "__dataclass_fields__"):
        return to_json(value)
    return json.dumps(value, sort_keys=True, default=str)


def key_of(parts: Sequence[str]) -> dg.AssetKey:
    """Dagster's form of a minted key."""
    return dg.AssetKey(list(parts))


def latest_record(instance: dg.DagsterInstance, key: Sequence[str], cls: type[T]) -> T | None:
    """Return the record of an asset's newest materialisation, or None where there is none."""
    event = instance.get_latest_materialization_event(key_of(key))
    if event is None or event.asset_materialization is None:
        return None
    value = event.asset_materialization.metadata.get(RECORD)
    return None if value is None else from_mapping(cls, cast("dict[str, Any]", value.value))


def latest_records(instance: dg.DagsterInstance, assets: Mapping[str, Sequence[str]], cls: type[T]) -> dict[str, T]:
    """Return the newest record of each of these assets that was made, by the names given to them: one query, however many they are."""
    records = instance.get_asset_records([key_of(key) for key in assets.values()]) if assets else []
    newest = {one.asset_entry.asset_key: one.asset_entry.last_materialization_record for one in records}
    found: dict[str, T] = {}
    for name, key in assets.items():
        record = newest.get(key_of(key))
        made = record.asset_materialization if record else None
        value = made.metadata.get(RECORD) if made else None
        if value is not None:
            found[name] = from_mapping(cls, cast("dict[str, Any]", value.value))
    return found


@dataclass(frozen=True)
class Outcome:
    """What a stage's work gave: the record downstream reads, its version, and what a person sees."""

    record: Any
    version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckResult] = ()


@dataclass(frozen=True)
class Step:
    """What the body of an asset works with: the run's context, the parts, the meter of its cost, and records of assets upstream."""

    context: dg.AssetExecutionContext
    parts: Parts
    meter: ports.Meter
    placed: list[Placement] = field(default_factory=list)

    def find(self, key: Sequence[str], cls: type[T]) -> T | None:
        """Return the record of an asset, or None where it was never made."""
        return latest_record(self.context.instance, key, cls)

    def read(self, key: Sequence[str], cls: type[T]) -> T:
        """Return the record of an asset upstream; a missing one fails the step, naming the key."""
        record = self.find(key, cls)
        if record is None:
            raise dg.Failure(f"{'/'.join(key)} was never materialised; materialise it first.", allow_retries=False)
        return record

    def place(self, *, threads: int | None = None, profile: str | None = None) -> Placement:
        """Fit the asset's profile, or a larger one, onto this machine for a program to be started; its materialisation says so.

        `threads` a process is the model's own word.
        """
        from resources.machine import look_at_machine

        compute = self.parts.catalogue.compute
        name = profile or profile_here(self.context.asset_key.path, self.parts)
        self.parts.border.hold(self.context.asset_key.path, actor=launcher_of(self.context.run.tags), profile=name)
        placement = resolve(compute.profiles[name], name=name, machine=look_at_machine(), threads=threads)
        self.placed.append(placement)
        self.say(f"{'/'.join(self.context.asset_key.path)} {placement.sentence}.")
        return placement

    def say(self, sentence: str) -> None:
        """Write one line into the run's log."""
        self.context.log.info(sentence)


def profile_here(key: Sequence[str], parts: Parts) -> str:
    """Return the profile that a step runs on: the asset's, or the larger one that its pod was given after one before ran out of memory."""
    given, profiles = parts.settings.profile, parts.catalogue.compute.profiles
    if given is not None and given not in profiles:
        raise StateError(f"FALAJ_PROFILE is {given!r}; declared are {listed(profiles)}; unset it, or start the run again.")
    return given or parts.catalogue.profile_of_asset(key)[0]


def held_on(profile: str, parts: Parts) -> Asked:
    """Return what a step on this profile holds here; without its GPUs it works on the CPU, which costs what the default profile does."""
    from resources.machine import look_at_machine

    compute = parts.catalogue.compute
    asked = asked_of(profile, compute.profiles[profile])
    if not asked.gpus or compute.gpus or look_at_machine().gpus:
        return asked
    return replace(asked, gpus=0, nodes=1, price_aed_per_hour=compute.profiles[compute.default].price_aed_per_hour)


def build_step(
    key: Sequence[str],
    work: Callable[[Step], Outcome | None],
    *,
    deps: Sequence[Sequence[str]],
    group: str,
    description: str,
    owner: str,
    kinds: set[str],
    code_version: str,
    binding: Binding,
    check_names: Sequence[str] = (),
    blocking: bool = True,
    tags: Mapping[str, str] | None = None,
) -> dg.AssetsDefinition:
    """Wrap one stage's work as an asset; work that returns None materialises nothing and everything downstream is skipped."""
    asset_key = key_of(key)

    @dg.asset(
        key=asset_key,
        deps=[key_of(dep) for dep in deps],
        group_name=group,
        description=description,
        owners=[owner],
        kinds=kinds,
        code_version=code_version,
        tags=tags,
        output_required=False,
        required_resource_keys={"parts"},
        op_tags=binding.tags,
        pool=binding.pool,
        check_specs=[dg.AssetCheckSpec(name, asset=asset_key, blocking=blocking) for name in check_names],
    )
    def _asset(context) -> Iterator[dg.MaterializeResult]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - dagster refuses deferred annotations here
        parts: Parts = context.resources.parts
        parts.watcher.step("/".join((key[0], *key[2:])))
        try:
            _note_launch(context, parts)
            with _known(key, context, parts), _measured(key, context, parts) as meter:
                step = Step(context, parts, meter)
                parts.border.hold(key, actor=launcher_of(context.run.tags))
                outcome = work(step)
                if outcome is not None and outcome.metadata.get("reused") is True:
                    meter.reused()
        except Exception as error:
            if is_outage(error):
                raise dg.RetryRequested(max_retries=OUTAGE_TRIES, seconds_to_wait=OUTAGE_SECONDS) from error
            if isinstance(error, FalajError):
                raise dg.Failure(str(error), allow_retries=False) from error
            raise
        if outcome is None:
            context.log.warning("%s: nothing was made; assets downstream are skipped.", "/".join(key))
            return
        yield dg.MaterializeResult(
            asset_key=asset_key,
            metadata={
                **outcome.metadata,
                **_compute_metadata(step, outcome),
                RECORD: dg.MetadataValue.json(json.loads(to_json(outcome.record))),
            },
            check_results=list(outcome.checks),
            data_version=dg.DataVersion(outcome.version[:32]),
        )

    return _asset


@contextmanager
def _known(key: Sequence[str], context: dg.AssetExecutionContext, parts: Parts) -> Iterator[None]:
    """Have logs and traces say of which run, step and model is spoken inside."""
    name, run = "/".join(key), context.run
    start_tracing("steps", parts.settings.traces.endpoint)
    known = {"run": run.run_id, "step": name, "model": key[1] if key[0] == "model" else None}
    with bound(**known), span(f"step {name}", parent=run.tags.get(TRACE_TAG), **known):
        event(f"{name} begins")
        yield
        event(f"{name} is done")


def _compute_metadata(step: Step, outcome: Outcome) -> dict[str, Any]:
    """What the asset's profile asks for, and what it got; only a started program is bounded."""
    from resources.machine import look_at_machine

    name = profile_here(step.context.asset_key.path, step.parts)
    asked = describe(name, step.parts.catalogue.compute.profiles[name])
    here = {"gpus": 0, "device": "cpu", "processes": 1, "cores": len(look_at_machine().cores), "bounded": False}
    got = {**asdict(step.placed[-1].got), "bounded": True} if step.placed else here
    if outcome.metadata.get("reused") is True:
        got = {"reused": True}
    return {"compute_asked": dg.MetadataValue.json(asked), "compute_got": dg.MetadataValue.json(got)}


def _measured(key: Sequence[str], context: dg.AssetExecutionContext, parts: Parts) -> AbstractContextManager[ports.Meter]:
    """Open the ledger for a step, by the same rules by which admission expected its cost."""
    catalogue = parts.catalogue
    tenant, model = payer_of(key, models=catalogue.models, run_model=context.run.tags.get(MODEL_TAG))
    asked = held_on(profile_here(key, parts), parts)
    return parts.ledger.measure(model=model, stage=stage_of(key), run_id=context.run.run_id, tenant=tenant, asked=asked)


def _note_launch(context: dg.AssetExecutionContext, parts: Parts) -> None:
    """Write who launched this run into the audit log, once a run: the first step that runs says it."""
    subject, tags = f"run/{context.run.run_id}", context.run.tags
    if subject in parts.launches:
        return
    if not parts.audit.entries(subject=subject):
        parts.audit.append(
            "launch",
            subject=subject,
            actor=launcher_of(tags),
            detail={"job": context.job_name, "tags": {k: v for k, v in tags.items() if k.startswith("falaj/")}},
        )
    parts.launches.add(subject)


def build_check(
    key: Sequence[str],
    name: str,
    *,
    passed: bool,
    sentence: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: Any,
) -> dg.AssetCheckResult:
    """State one check's result with the sentence a person reads."""
    return dg.AssetCheckResult(
        asset_key=key_of(key), check_name=name, passed=passed, severity=severity, description=sentence, metadata=figures
    )


def picture(image: bytes | str) -> dg.MetadataValue:
    """Show a PNG, or the text of an SVG, in the web UI, inline."""
    import base64

    kind, content = ("svg+xml", image.encode()) if isinstance(image, str) else ("png", image)
    return dg.MetadataValue.md(f"![picture](data:image/{kind};base64,{base64.b64encode(content).decode()})")
