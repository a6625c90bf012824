"""Shape of a model's declaration: one small spec a stage. Cross-file rules live in catalogue.py."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from platform_assets.specs.base import ColumnName, Cron, Jurisdiction, Name, Span, Spec, format_span
from platform_assets.specs.compute import BudgetSpec, ProfileName, SlaSpec

Kind = Literal["binary", "multiclass"]
Architecture = Literal["tabular_transformer", "tabular_mlp", "text_transformer", "vision_transformer", "convolutional", "custom"]
METRICS = {"binary": ("auroc", "accuracy", "log_loss"), "multiclass": ("accuracy", "log_loss")}
HIGHER_IS_BETTER = {"auroc": True, "accuracy": True, "log_loss": False}
_BOUND = re.compile(r"^\s*(>=|<=)\s*(-?\d+(?:\.\d+)?)\s*$")


def parse_bound(text: str) -> tuple[str, float]:
    """Split `>= 0.85` into operator and number; anything else is a ValueError that says so."""
    match = _BOUND.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a bound; write for example '>= 0.85' or '<= 0.1'")
    return match[1], float(match[2])


def _check_bound(text: str) -> str:
    parse_bound(text)
    return text


Bound = Annotated[str, AfterValidator(_check_bound)]


class FeaturesSpec(Spec):
    """Which views the model reads; columns named in `without` are left out."""

    views: tuple[Name, ...] = Field(min_length=1, description="Feature views of the dataset.")
    without: tuple[ColumnName, ...] = Field((), description="Features of those views that the model does not read.")


class TargetSpec(Spec):
    """What is predicted."""

    column: ColumnName = Field(description="The dataset's label column.")
    kind: Kind = Field(description="binary leads with AUROC, multiclass with accuracy.")


class SplitSpec(Spec):
    """Time-ordered shares: the newest rows are the holdout, the ones before them the calibration set."""

    calibration: float = Field(0.15, gt=0, lt=0.5, description="Share on which baselines are tuned and epochs compared.")
    holdout: float = Field(0.15, gt=0, lt=0.5, description="Newest share, on which gates and candidates are measured.")
    recent_rows: PositiveInt | None = Field(None, description="Only the newest labelled rows, this many, are split at all.")


class PrivacySpec(Spec):
    """Differential privacy of the training: without any one training row the weights are nearly as likely."""

    epsilon: float = Field(gt=0, le=100, description="Largest privacy loss; the training ends before it is exceeded.")
    delta: float = Field(gt=0, lt=0.01, description="Chance that the loss is larger; well below one over the number of training rows.")
    max_grad_norm: PositiveFloat = Field(1.0, description="Norm that each row's gradient is clipped to; noise is measured by it.")


class LearningSpec(Spec):
    """What decides a network's weights. Sizes are declared, and printed: every later ratio is against this network."""

    architecture: Architecture = Field(
        description="Network; vision_transformer and convolutional for views with an image, text_transformer with a text; custom: `module`."
    )
    module: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="package.module:Class of a LightningModule of your own, with architecture custom.",
    )
    options: dict[str, bool | int | float | str] = Field(default_factory=dict, description="Keyword arguments of that class.")
    width: PositiveInt = Field(32, le=16384, description="Width of a token or hidden layer.")
    depth: PositiveInt = Field(2, le=64, description="Blocks.")
    heads: PositiveInt = Field(4, le=64, description="Attention heads; the width is a multiple of them.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of activations dropped while training.")
    max_tokens: PositiveInt = Field(128, le=8192, description="Tokens of a text that are read; what follows them is not.")
    vocabulary: int = Field(4000, ge=64, le=10_000, description="Most word pieces of the tokeniser that is trained on the training rows.")
    epochs: PositiveInt = Field(8, le=10_000, description="Passes over the training rows.")
    batch_size: PositiveInt = Field(512, le=1_000_000, description="Rows a step, over all processes together.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak of AdamW's rate, reached after a warm-up.")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's weight decay.")
    clip_norm: PositiveFloat = Field(1.0, description="Largest norm of a step's gradient; larger ones are scaled down to it.")
    seed: int = Field(7, ge=0, description="Of initial weights, order and dropout.")
    precision: Literal["32-true", "bf16-mixed"] = Field(
        "32-true", description="Arithmetic of the training; left out, the profile's where its hardware is there."
    )
    threads: PositiveInt | None = Field(None, description="CPU threads; the profile's cores when left out.")
    privacy: PrivacySpec | None = Field(None, description="Differential privacy (DP-SGD); without it nothing is guaranteed.")


class CheckpointsSpec(Spec):
    """How much work a lost machine may cost."""

    every: Span = Field(default="5m", validate_default=True, description="Longest time between two checkpoints.")
    steps: PositiveInt | None = Field(None, description="Longest number of steps between two checkpoints, too.")
    keep: PositiveInt = Field(2, le=100, description="Newest checkpoints that are kept until the training has ended.")


class RangeSpec(Spec):
    """Numbers that a trial may take."""

    low: float = Field(description="Smallest.")
    high: float = Field(description="Largest.")
    log: bool = Field(False, description="Spread evenly over orders of magnitude.")


class TrainingSpec(LearningSpec):
    """How the teacher is trained, on what, and what it may cost."""

    compute: ProfileName | None = Field(None, description="Profile of the compute catalogue; its default when left out.")
    max_cost_aed: PositiveFloat | None = Field(None, description="A training that is expected to cost more is not started.")
    strategy: Literal["ddp", "fsdp2"] = Field(
        "ddp", description="How several processes share the work: whole copies, or shards of the weights."
    )
    micro_batches: PositiveInt = Field(1, description="Parts that each step's rows are cut into, their gradients added up.")
    compile: bool = Field(False, description="Compile the network (torch.compile).")
    gradient_checkpointing: bool = Field(False, description="Compute activations again in the backward pass instead of keeping them.")
    checkpoints: CheckpointsSpec = Field(CheckpointsSpec(), description="How often the state is saved.")
    attempts: PositiveInt = Field(5, le=100, description="Starts in all, after preemption or running out of memory.")
    tolerance: float = Field(
        0.005, ge=0, le=1, description="Difference of the leading metric that a reproduction on other hardware may have."
    )
    search: dict[str, RangeSpec | tuple[bool | int | float | str, ...]] = Field(
        default_factory=dict, description="Search space of `falaj sweep`: a field above to a range, or to a list of choices."
    )

    def learning(self) -> LearningSpec:
        """Return the fields that decide the weights: equal ones, from equal rows, give an equal network."""
        return LearningSpec.model_validate(self.model_dump(include=self.model_fields_set & set(LearningSpec.model_fields)))


Method = Literal["distil", "trees", "tables", "prune", "low_rank", "exit", "qat", "fuse", "pack", "int8", "static", "dynamic"]


class CompressionSpec(Spec):
    """How long to search for compressed candidates, by what means, and what a release may cost."""

    budget: Span = Field(default="60s", validate_default=True, description="Time for the whole search: students, trials and measuring.")
    methods: tuple[Method, ...] = Field(get_args(Method), description="What may be tried, alone and in compositions.")
    tolerate_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest loss of the leading metric against the teacher on the calibration rows, standard error included.",
    )
    latency_ms_p99: PositiveFloat = Field(5.0, description="Budget of one row's p99 in process, on the CPU at hand.")
    groups: tuple[ColumnName, ...] = Field(
        (),
        description="Categories in each of whose values a candidate must not be much worse than the teacher; all of the model's if empty.",
    )
    group_drop: float = Field(
        0.05, gt=0, le=1, description="Loss of accuracy in one group that refuses a candidate, where it is no chance."
    )
    batch_sizes: tuple[PositiveInt, ...] = Field(
        (1, 2, 8, 32, 256), min_length=1, description="Batches that will be served: a row must get the same answer in each."
    )
    threads: PositiveInt = Field(1, description="onnxruntime threads of the CPU class that serves.")
    compute: ProfileName | None = Field(
        None, description="Profile that the search runs on, whose price a prediction costs; the catalogue's default when left out."
    )


class RolloutSpec(Spec):
    """From shadow to live, by evidence: how much harm is too much, and how often the verdict may be wrong."""

    canary_percent: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field((10, 50), description="Shares of requests, step by step.")
    min_requests: PositiveInt = Field(20, description="Fewest requests that the challenger sees at each step, whatever the evidence.")
    max_error_share: float = Field(0.01, gt=0, le=1, description="Share of the challenger's requests that may fail.")
    max_latency_ratio: PositiveFloat = Field(5.0, description="A request is slow when it takes longer than this times the champion's p99.")
    max_slow_share: float = Field(0.05, gt=0, le=1, description="Share of the challenger's requests that may be slow.")
    max_disagreement: float = Field(0.5, gt=0, le=1, description="Share of rows whose predicted class differs from the champion's.")
    max_worse_share: float = Field(
        0.6, gt=0, le=1, description="Of newly labelled rows that one of the two gets right, the share that the champion may win."
    )
    false_rollback: float = Field(0.05, gt=0, lt=0.5, description="Chance of rolling back a release that keeps all these limits.")
    false_promotion: float = Field(0.05, gt=0, lt=0.5, description="Chance of letting a release go live that breaks one of them.")
    timeout: Span = Field(default="10m", validate_default=True, description="Without enough evidence until then the champion stays.")


class ServingSpec(Spec):
    """Where and how a release is deployed."""

    rollout: RolloutSpec = Field(RolloutSpec(), description="Steps from shadow to live.")
    online_features: bool = Field(
        True, description="Features of other entities that a caller leaves out are looked up in the online store; false: they are missing."
    )


Season = Literal["day", "week", "year"]


class ServiceWatchSpec(Spec):
    """How much worse than the release showed it may be served before people are told."""

    min_requests: PositiveInt = Field(500, description="Fewest requests of a version that are judged together.")
    latency_ratio: float = Field(3.0, gt=1, description="p99 over that of the release.")
    error_share: float = Field(0.01, gt=0, lt=1, description="Share of requests that fail on top of those that failed then.")
    cpu_ratio: float = Field(2.0, gt=1, description="CPU a run of the model, and a row, over that of the release at a like pace.")


def _check_rhythm(every: timedelta) -> timedelta:
    if every < _LEAST_RHYTHM:
        raise ValueError(f"{format_span(every)} is shorter than the daemon looks; write {format_span(_LEAST_RHYTHM)} or more")
    return every


_LEAST_RHYTHM = timedelta(seconds=10)
Rhythm = Annotated[Span, AfterValidator(_check_rhythm)]


class MonitoringSpec(Spec):
    """Windows of the production log against the training reference."""

    window_rows: PositiveInt = Field(2000, description="Predictions a window.")
    every: Rhythm | None = Field(
        None, description="How often the daemon judges the log, by the wall clock, such as 1m; null: when labels land, or somebody asks."
    )
    significance: float = Field(0.01, gt=0, lt=1, description="Family-wise, after Bonferroni's correction over all tests of a window.")
    min_effect: float = Field(
        0.02, gt=0, lt=1, description="Smallest effect (KS distance, total variation, correlation, share of rows) that counts."
    )
    false_alarms: float = Field(
        0.01, gt=0, lt=0.5, description="Share of windows without a drift that may alarm, kept by what the training rows' own blocks show."
    )
    performance_drop: float = Field(0.03, gt=0, lt=1, description="Drop of the leading metric, once labels are known, that counts.")
    season: Season | None = Field(
        None,
        description="Known cycle: a window's inputs are compared with the same hours, days of the week or months of the training rows.",
    )
    service: ServiceWatchSpec = Field(ServiceWatchSpec(), description="How the server answers, against what the release showed.")


class PayoffSpec(Spec):
    """Expected gain against expected cost: what a policy may spend, and from which gain on."""

    budget: float = Field(0.2, gt=0, le=1, description="Share of the CPU that retraining after every window would cost.")
    least_gain: float = Field(0.03, ge=0, lt=1, description="Share of the loss that a retraining must be expected to take away.")
    refresh_keeps: float | None = Field(
        0.9,
        gt=0,
        lt=1,
        description="How much of its old rows a refreshed champion remembers, window by window; null: never refreshed. In a replay alone.",
    )
    credit_windows: NonNegativeInt = Field(4, description="Windows whose budget may be spent before they have come.")


class WarmStartSpec(Spec):
    """When a retraining begins with the champion's weights instead of fresh ones (decision 84)."""

    epochs: float = Field(0.5, gt=0, le=1, description="Share of the declared epochs that it then takes.")
    most_loss: float = Field(
        2.0, gt=1, description="Loss on the newest labelled window over the promised one from which the champion's weights are no help."
    )
    at_most: PositiveInt = Field(3, description="Warm starts in a row, after which one begins from scratch.")


class RetrainingSpec(Spec):
    """When a retraining is asked for."""

    on_drift: bool = Field(True, description="A drifted window asks.")
    wait_for_labels: NonNegativeInt = Field(
        0, description="Labelled rows since a drift or drop began before it asks: without labels there is nothing new to learn."
    )
    on_performance: bool = Field(True, description="A drop of the leading metric asks, once labels are known.")
    on_estimate: bool = Field(
        False,
        description="A drop that is estimated without labels asks. Off: what harms a model hardly shows in its confidence (decision 41).",
    )
    on_new_rows: PositiveInt | None = Field(None, description="Rows since the last training that ask for one.")
    on_age: Span | None = Field(None, description="Age of the newest row that was learnt from, on the data's clock, that asks for one.")
    schedule: Cron | None = Field(
        None, description="Cron, on the wall clock in UTC; it trains unless one is under way or the feed is at fault."
    )
    payoff: PayoffSpec = Field(PayoffSpec(), description="What a retraining must be expected to win, and may cost.")
    warm_start: WarmStartSpec | None = Field(
        WarmStartSpec(), description="When it begins with the champion's weights; null: always from scratch."
    )
    ask_a_person_after: PositiveInt = Field(
        3, description="Retrainings in a row that won nothing, after which only a person (falaj drift ask) gets another."
    )
    cool_down: Span = Field(
        default="30d",
        validate_default=True,
        description="Least time between two asks, on the data's clock; twice as long after one that did not help.",
    )
    least_gain: float = Field(
        0.005, ge=0, lt=1, description="Gain of the leading metric that a retraining is for: it did not help where this can be ruled out."
    )
    at_most: PositiveInt = Field(4, description="Retrainings within `within`.")
    within: Span = Field(default="365d", validate_default=True, description="Span of `at_most`, on the data's clock.")


class GovernanceSpec(Spec):
    """What the record of processing needs."""

    residency: Jurisdiction = Field("AE", description="Jurisdiction, ISO 3166-1 alpha-2.")
    retention: Span | None = Field(
        None, description="How long answers may be kept in the production log, by event time on the data's clock."
    )
    report_span: Span = Field(default="31d", validate_default=True, description="Time that each scheduled audit report looks back on.")
    approval: Literal["automatic", "four-eyes"] = Field(
        "automatic", description="four-eyes: a release that passed the gates waits until somebody else than who asked for it approves it."
    )


class ModelSpec(Spec):
    """One model, its whole life."""

    name: Name = Field(description="Unique among models; part of every asset key.")
    owner: str = Field(description="Who answers for it, e.g. team:revenue.")
    tenant: Name = Field("default", description="On whose behalf it runs; a tag of assets and runs.")
    purpose: str = Field(min_length=10, description="Why the data is processed: enters the record of processing.")
    dataset: Name = Field(description="Name of a declared dataset.")
    features: FeaturesSpec = Field(description="What the model reads.")
    target: TargetSpec = Field(description="What it predicts.")
    split: SplitSpec = Field(SplitSpec(), description="Shares of the training set, in time order.")
    training: TrainingSpec = Field(description="How the teacher is trained.")
    gates: dict[str, Bound] = Field(default_factory=dict, description="Metric, or metric_vs_champion, to a bound on the holdout.")
    compression: CompressionSpec = Field(CompressionSpec(), description="Which candidates are made, and what a release may cost.")
    serving: ServingSpec = Field(ServingSpec(), description="How a release comes to production.")
    monitoring: MonitoringSpec = Field(MonitoringSpec(), description="How production is watched.")
    retraining: RetrainingSpec = Field(RetrainingSpec(), description="When a retraining is asked for.")
    sla: SlaSpec = Field(SlaSpec(), description="How much its runs matter, and by when they must be done.")
    budget: BudgetSpec | None = Field(None, description="What its runs may cost in a month; its tenant's budget holds beside it.")
    governance: GovernanceSpec = Field(GovernanceSpec(), description="Where data may be, and for how long.")

    @property
    def leading_metric(self) -> str:
        """The metric that selection, gates and reports lead with."""
        return METRICS[self.target.kind][0]
