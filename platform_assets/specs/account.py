"""What lineage and audit say of one model in a period: the input of the regulator's report. Plain values, gathered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AuditEntry = Mapping[str, Any]  # as the port gives it: seq, at, action, subject, actor, detail, hash


@dataclass(frozen=True)
class ReleaseAccount:
    """One release that was live in the period, as the release itself says; `refused` says why it could not be opened (then it is empty).

    `groups`: figures on the holdout by column and value, `files` names what is in it.
    """

    version: str
    digest: str
    declaration: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    candidates: Mapping[str, Any] = field(default_factory=dict)
    groups: Sequence[Mapping[str, Any]] = ()
    files: Sequence[str] = ()
    refused: str = ""


@dataclass(frozen=True)
class Account:
    """Everything that a report is made of.

    `since` and `until`: ISO times in UTC, of the wall clock. `entries`: of the model, its dataset, its runs and the platform, in order, in
    the period; `before`: the decision that was in force when the period began. `way`: asset, profile and jurisdiction of every step of
    the data; `places`: parts, jurisdiction and ground of every store, queue, log and target that it comes to. `windows`:
    drift windows (the data's clock) seen in the period. `cost`: ledger by stage. `notes`: figures that assets left in their metadata in
    the period, by asset key.
    """

    model: str
    since: str
    until: str
    log_length: int
    declared: Mapping[str, Any]
    dataset: Mapping[str, Any]
    entries: Sequence[AuditEntry] = ()
    before: AuditEntry | None = None
    releases: Sequence[ReleaseAccount] = ()
    way: Sequence[Mapping[str, str]] = ()
    places: Sequence[Mapping[str, Any]] = ()
    windows: Sequence[Mapping[str, Any]] = ()
    performance: Sequence[Mapping[str, Any]] = ()
    cost: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
