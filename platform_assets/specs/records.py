"""Values that stages hand to each other and that bundles store as JSON. Standard library only.

The trainer (torch, lightning, pyarrow, numpy) and the inference server read these, so pydantic stays out.
Every record turns into plain JSON and back: `record_json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from platform_assets.specs.estimate import WindowEstimate
from platform_assets.specs.guarantee import Guarantee
from platform_assets.specs.service import PaceCounts, ServiceReport

FeatureKind = Literal["numeric", "category", "date", "image", "text"]


@dataclass(frozen=True)
class TablePin:
    """One version of one Delta table, exactly."""

    table: str
    version: int
    rows: int
    content_hash: str


@dataclass(frozen=True)
class ViewTable:
    """A feature view and the exact version of the table that holds its rows.

    The table's columns: `entity` (string), `event_timestamp` (timestamp us) and the features (numeric: double, category and text: string,
    date: timestamp us, image: list of float). A value older than `ttl_seconds` at the event is not used; 0 is forever.
    """

    name: str
    entity: str
    kinds: dict[str, FeatureKind]
    pin: TablePin
    ttl_seconds: int = 0


@dataclass(frozen=True)
class Ingestion:
    """What one ingestion did."""

    pin: TablePin
    rows_seen: int
    rows_new: int
    rows_changed: int
    size_bytes: int
    as_of: str


@dataclass(frozen=True)
class CheckResult:
    """One contract rule held against data; `samples` are offending rows as text, without personal values."""

    name: str
    passed: bool
    blocking: bool
    sentence: str
    unexpected_count: int = 0
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Validation:
    """A delivery held against its contract. `good`: it may come into force, without the rows of `offending_keys`."""

    good: bool
    checks: tuple[CheckResult, ...]
    offending_keys: tuple[str, ...]
    rows: int
    sentence: str


@dataclass(frozen=True)
class InForce:
    """The version of a dataset that downstream reads: the newest one that fulfilled its contract."""

    pin: TablePin
    source_version: int
    refused: str | None = None
    quarantined_rows: int = 0


@dataclass(frozen=True)
class Feature:
    """One input of a model.

    numeric: float; category: string; text: string; date: timestamp, carried as float days since 1970-01-01;
    image: `size` floats, row by row. `entity` and `view` say where an online value is looked up.
    """

    name: str
    kind: FeatureKind
    view: str
    entity: str
    size: int = 1


@dataclass(frozen=True)
class FeatureSchema:
    """Inputs in order, target and classes. Shapes of the ONNX inputs follow from it.

    `numeric`: float32 [rows, number of numeric and date features], NaN is missing;
    `categorical`: string [rows, number of category features], "" is missing;
    `image`: float32 [rows, size]; `text`: string [rows, number of text features], "" is missing.
    An input with no features is absent. Output `probabilities`: float32 [rows, classes].
    `online`: features of other entities that a caller leaves out are looked up.
    """

    features: tuple[Feature, ...]
    target: str
    classes: tuple[str, ...]
    key: str
    event_time: str
    online: bool = True

    def of_kind(self, *kinds: str) -> tuple[Feature, ...]:
        """Features of these kinds, in declared order."""
        return tuple(feature for feature in self.features if feature.kind in kinds)


@dataclass(frozen=True)
class TrainingSet:
    """A folder of the shards of train, calibration and holdout, shards.json and schema.json, by content hash.

    `left_out`: the artefact that names the keys of labelled rows that were not to be learnt from; None where there were none.
    """

    digest: str
    rows: dict[str, int]
    dataset: TablePin
    views: dict[str, TablePin]
    first_event: str
    last_event: str
    left_out: str | None = None


@dataclass(frozen=True)
class Training:
    """What one training gave: artefact digest (checkpoint.pt, model.onnx, curve.json, schema.json, predictions), figures, cost.

    `warm_start`: digest of the training whose weights it began with; None where it began with fresh ones.
    """

    digest: str
    training_set: str
    parameters: int
    size_bytes: int
    holdout: dict[str, float]
    calibration: dict[str, float]
    baseline: dict[str, float]
    seconds: float
    warm_start: str | None = None
    privacy: Guarantee | None = None


@dataclass(frozen=True)
class Bound:
    """One gate: what was asked, what was found."""

    metric: str
    bound: str
    found: float
    holds: bool


@dataclass(frozen=True)
class GateVerdict:
    """Whether a selected candidate may become a release."""

    passed: bool
    bounds: tuple[Bound, ...]
    champion: str | None
    sentence: str


@dataclass(frozen=True)
class Release:
    """A content-addressed bundle. `version` is the first 12 hex digits of `digest`."""

    model: str
    version: str
    digest: str
    candidate: str
    registry_version: str
    metrics: dict[str, float]
    training_set: str


@dataclass(frozen=True)
class ArmFigures:
    """What the server measured for one version.

    `latency_counts` holds its answered requests in the buckets of specs.looks, `paces` the same by the pause before a run, and its CPU.
    """

    version: str
    requests: int
    rows: int
    errors: int
    latency_ms_p50: float
    latency_ms_p99: float
    latency_counts: tuple[int, ...] = ()
    paces: tuple[PaceCounts, ...] = ()


@dataclass(frozen=True)
class RolloutVerdict:
    """Outcome of a rollout; `live_before` and `live_digest` were read back from the server, `looks` is the folder with every look."""

    outcome: Literal["live", "rolled_back", "inconclusive"]
    version: str
    previous: str | None
    live_digest: str
    stages: tuple[str, ...]
    champion: ArmFigures | None
    challenger: ArmFigures | None
    disagreement: float
    compared_rows: int
    sentence: str
    live_before: str | None = None
    looks: str | None = None


Layer = Literal["column", "quality", "joint", "answer", "label", "embedding"]


@dataclass(frozen=True)
class ColumnDrift:
    """One piece of evidence: a column of a window, or what was found in it, against the reference.

    `effect` is in [0, 1] and counts above `threshold` where `p_value` (corrected for all tests of its layer) is significant. `column` is
    what a reader is shown, unique in its window ("lead_time", "lead_time missing", "country with agent", "prediction"); `feature` is the
    model's input it is taken from, of two the one that the model leans on less, "" for answers and labels. `was` and `now` say in a few
    words what the reference and the window hold. Every column and answer of a window is listed, the other layers only where they stand out.
    """

    column: str
    statistic: str
    effect: float
    p_value: float
    threshold: float
    drifted: bool
    importance: float
    layer: Layer = "column"
    feature: str = ""
    was: str = ""
    now: str = ""


@dataclass(frozen=True)
class WindowReport:
    """Evidence of one window of the production log.

    `drifted`: something that the model leans on moved; the others of `moved` are told and ask for nothing. `declared_rate`: false alarms
    that are expected a window.
    """

    window: int
    first_row: int
    last_row: int
    first_event: str
    last_event: str
    versions: tuple[str, ...]
    columns: tuple[ColumnDrift, ...]
    drifted: bool
    evidence: str
    declared_rate: float | None = None

    @property
    def moved(self) -> tuple[ColumnDrift, ...]:
        """Everything that moved, what the model leans on most first."""
        return tuple(sorted((column for column in self.columns if column.drifted), key=lambda column: -column.importance))

    @property
    def harmless(self) -> bool:
        """Whether something moved, and nothing that the model leans on."""
        return bool(self.moved) and not self.drifted


@dataclass(frozen=True)
class WindowPerformance:
    """Leading metric of one window's rows whose label is known; `settled` once enough are for a judgement.

    `label_shift`: shares of the classes among them against those of the training rows.
    """

    window: int
    last_event: str
    rows: int
    labelled: int
    metric: str
    value: float | None
    promised: float
    settled: bool
    dropped: bool
    sentence: str
    label_shift: ColumnDrift | None = None
    error: float | None = None  # standard error of `value`


@dataclass(frozen=True)
class DriftReport:
    """All windows so far, labelled figures of those whose labels came, what each was estimated at without, and how they were served."""

    windows: tuple[WindowReport, ...]
    performance: tuple[WindowPerformance, ...] = ()
    estimates: tuple[WindowEstimate, ...] = ()
    service: tuple[ServiceReport, ...] = ()

    @property
    def first_drifted_row(self) -> int | None:
        """Row of the log at which the first drifted window begins."""
        return next((window.first_row for window in self.windows if window.drifted), None)


@dataclass(frozen=True)
class DriftPointer:
    """Where a drift report lies, and what it says in short: the windows themselves are too many for the event log."""

    digest: str
    windows: int
    drifted: bool
    first_drifted_row: int | None
    evidence: str
    feed_fault: str = ""


@dataclass(frozen=True)
class RetrainingVerdict:
    """Whether a retraining is asked for, and why or why not.

    `triggers`: everything that asks; `trigger` leads, and began at `since`. `blocked`: what no retraining can mend. `expected_gain`: share
    of the loss that one is expected to take away; `expected_cost_aed`: what it is expected to cost; both None where they were not weighed.
    `how` it is to be trained, of which rows (`learns_from`), and what spoke for that (`how_why`); `base`: the training whose weights it
    begins with; all empty where nothing is asked.
    """

    asked: bool
    trigger: str
    sentence: str
    verdict_id: str
    decided_at: str
    evidence: dict[str, float] = field(default_factory=dict)
    since: str = ""
    triggers: tuple[str, ...] = ()
    blocked: Literal["", "data_at_fault", "needs_a_person"] = ""
    expected_gain: float | None = None
    expected_cost_aed: float | None = None
    weighed: str = ""
    how: Literal["", "from_scratch", "warm_start"] = ""
    how_why: str = ""
    learns_from: str = ""
    base: str | None = None
