"""One shape for every asset: read pinned inputs, do one stage's work, record what was made. No stage's own logic belongs here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import dagster as dg

from platform_assets.errors import FalajError
from platform_assets.specs.records import from_mapping, to_json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from resources.parts import Parts

RECORD = "falaj/record"
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


@dataclass(frozen=True)
class Outcome:
    """What a stage's work gave: the record downstream reads, its version, and what a person sees."""

    record: Any
    version: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[dg.AssetCheckResult] = ()


@dataclass(frozen=True)
class Step:
    """What the body of an asset works with: the run's context, the parts, and records of assets upstream."""

    context: dg.AssetExecutionContext
    parts: Parts

    def find(self, key: Sequence[str], cls: type[T]) -> T | None:
        """Return the record of an asset, or None where it was never made."""
        return latest_record(self.context.instance, key, cls)

    def read(self, key: Sequence[str], cls: type[T]) -> T:
        """Return the record of an asset upstream; a missing one fails the step, naming the key."""
        record = self.find(key, cls)
        if record is None:
            raise dg.Failure(f"{'/'.join(key)} was never materialised; materialise it first.", allow_retries=False)
        return record

    def say(self, sentence: str) -> None:
        """Write one line into the run's log."""
        self.context.log.info(sentence)


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
        check_specs=[dg.AssetCheckSpec(name, asset=asset_key, blocking=blocking) for name in check_names],
    )
    def _asset(context) -> Iterator[dg.MaterializeResult]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - dagster refuses deferred annotations here
        parts: Parts = context.resources.parts
        model = key[1]
        parts.watcher.step("/".join((key[0], *key[2:])))
        _note_launch(context, parts)
        with parts.ledger.measure(model=model, stage="/".join((key[0], *key[2:])), run_id=context.run.run_id):
            try:
                outcome = work(Step(context, parts))
            except FalajError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
        if outcome is None:
            context.log.warning("%s: nothing was made; assets downstream are skipped.", "/".join(key))
            return
        yield dg.MaterializeResult(
            asset_key=asset_key,
            metadata={**outcome.metadata, RECORD: dg.MetadataValue.json(json.loads(to_json(outcome.record)))},
            check_results=list(outcome.checks),
            data_version=dg.DataVersion(outcome.version[:32]),
        )

    return _asset


def _note_launch(context: dg.AssetExecutionContext, parts: Parts) -> None:
    """Write who launched this run into the audit log, once a run: the first step that runs says it."""
    subject, tags = f"run/{context.run.run_id}", context.run.tags
    if parts.audit.entries(subject=subject):
        return
    launcher = next(
        (tags[name] for name in ("dagster/sensor_name", "dagster/schedule_name", "falaj/actor") if name in tags), "web UI or API"
    )
    parts.audit.append(
        "launch",
        subject=subject,
        actor=launcher,
        detail={"job": context.job_name, "tags": {k: v for k, v in tags.items() if k.startswith("falaj/")}},
    )


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


def picture(png: bytes) -> dg.MetadataValue:
    """Show a PNG in the web UI, inline."""
    import base64

    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")
