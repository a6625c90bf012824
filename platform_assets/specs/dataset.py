"""Shape of a dataset's declaration: source, contract, personal data, feature views. No reading happens here."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from platform_assets.specs.base import ColumnName, Cron, Jurisdiction, Name, Span, Spec

ColumnType = Literal["integer", "number", "string", "boolean", "timestamp", "image", "text"]


class SimulatorSource(Spec):
    """The shipped, seeded simulator of hotel bookings; stands for a live source."""

    kind: Literal["simulator"] = Field(description="Simulated hotel bookings.")
    seed: int = Field(7, ge=0, description="Same seed, same bytes.")
    history_rows: PositiveInt = Field(30_000, description="Bookings before the model's first day.")
    live_rows: PositiveInt = Field(20_000, description="Bookings after it, the live traffic.")
    drift_after_rows: PositiveInt = Field(8_000, description="Live booking at which the scripted drift begins.")


class DigitsSource(Spec):
    """scikit-learn's own 1,797 real handwritten digits, in a seeded order, one a minute."""

    kind: Literal["digits"] = Field(description="Handwritten digits.")
    seed: int = Field(7, ge=0, description="Decides the order.")


class FileSource(Spec):
    """A file, a folder of files or an object store URL (anything fsspec opens)."""

    kind: Literal["file"] = Field(description="A file, folder or URL.")
    path: str = Field(description="Path or URL; a folder is read as one table.")
    format: Literal["csv", "parquet", "delta"] | None = Field(None, description="Told from the ending when left out.")


class SqlSource(Spec):
    """A query over a SQLAlchemy URL; the URL itself comes from a file so that no secret stands in a declaration."""

    kind: Literal["sql"] = Field(description="A query.")
    url_file: str = Field(description="File that holds the SQLAlchemy URL.")
    query: str = Field(description="Query that gives all rows of the dataset; its columns are the declared ones.")


class ProvidedSource(Spec):
    """No source of its own: `falaj run --source NAME=PATH` provides it."""

    kind: Literal["provided"] = Field(description="Given on the command line.")


Source = Annotated[SimulatorSource | DigitsSource | FileSource | SqlSource | ProvidedSource, Field(discriminator="kind")]


class Drop(Spec):
    """The column ends at `protected`."""

    method: Literal["drop"] = Field("drop", description="Leave the column out.")


class Pseudonymise(Spec):
    """Keyed HMAC-SHA-256: equal values stay equal, nothing can be read back without the key."""

    method: Literal["pseudonymise"] = Field("pseudonymise", description="Replace values by keyed hashes.")


class Generalise(Spec):
    """Numbers fall to the floor of a bin of this width."""

    method: Literal["generalise"] = Field("generalise", description="Make numbers coarse.")
    width: float = Field(gt=0, description="Width of a bin, in the column's unit.")


class Column(Spec):
    """One column of the contract. Columns of a source that are not declared are never ingested."""

    type: ColumnType = Field(description="Values that do not fit are refused or set aside.")
    nullable: bool = Field(False, description="May be missing.")
    minimum: float | None = Field(None, description="Smallest allowed value; of every pixel, in an image.")
    maximum: float | None = Field(None, description="Largest allowed value; of every pixel, in an image.")
    values: tuple[str, ...] | None = Field(None, description="Closed set of strings.")
    shape: tuple[PositiveInt, PositiveInt] | None = Field(None, description="Height and width, images only.")
    personal: Annotated[Drop | Pseudonymise | Generalise, Field(discriminator="method")] | None = Field(
        None, description="Personal data, and what `protected` does with it."
    )
    not_personal: str = Field("", description="Why what looks like personal data here is none: the hunt for it passes the column by.")
    quasi: bool = Field(False, description="May single a person out together with others of its kind: k-anonymity is measured over them.")
    description: str = Field("", description="What the column means, for people.")

    @model_validator(mode="after")
    def _fits_its_type(self) -> Column:
        if self.type == "image" and self.shape is None:
            raise ValueError("an image column needs shape: [height, width]")
        if self.values is not None and self.type != "string":
            raise ValueError(f"values are for string columns, this one is {self.type}")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "number", "image"):
            raise ValueError(f"minimum and maximum are for integer, number and image columns, this one is {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        if isinstance(self.personal, Generalise) and self.type not in ("integer", "number"):
            raise ValueError(f"generalise is for integer and number columns, this one is {self.type}")
        return self


class Label(Spec):
    """The outcome, and the time at which it becomes known (before that it is read as missing)."""

    column: ColumnName = Field(description="Column of the outcome; declare it nullable where it comes later than its row.")
    known_at: ColumnName = Field(description="Timestamp column: when the outcome is known.")


class Contract(Spec):
    """What a delivery must fulfil beyond its columns."""

    max_age: Span | None = Field(None, description="Newest event may be at most this old on the data's clock.")
    min_rows: PositiveInt = Field(1, description="Fewer rows in all are refused.")
    max_shrink: float = Field(
        0.5, ge=0, le=1, description="Refused when the table shrinks by more than this share against the last good version."
    )
    on_violation: Literal["block", "quarantine"] = Field("block", description="Offending rows block the delivery, or are set aside.")
    max_quarantined: float = Field(0.05, ge=0, le=1, description="With quarantine: more than this share blocks after all.")


class ColumnsView(Spec):
    """Columns as they stand in the row at its event time."""

    kind: Literal["columns"] = Field(description="Columns of the row itself.")
    entity: ColumnName = Field(description="Column by which values are found, the key of the row as a rule.")
    columns: tuple[ColumnName, ...] = Field(min_length=1, description="Columns that become features, known at the event time.")


class Aggregate(Spec):
    """Trailing mean of a column per entity; a label counts only once it is known."""

    mean: ColumnName = Field(description="Column whose mean is taken.")
    window: Span = Field(description="How far back rows count.")


class AggregatesView(Spec):
    """Trailing aggregates per entity, computed on a fixed grid of event time."""

    kind: Literal["aggregates"] = Field(description="Aggregates over past rows of an entity.")
    entity: ColumnName = Field(description="Column by which rows are grouped and values are found.")
    every: Span = Field(description="Grid of computation; online values are at most this old.")
    aggregates: dict[ColumnName, Aggregate] = Field(min_length=1, description="Features by name.")


FeatureView = Annotated[ColumnsView | AggregatesView, Field(discriminator="kind")]


class Transfer(Spec):
    """A transfer across the border that the law allows, with the ground for it: UAE PDPL articles 22 and 23, GDPR articles 44 to 49."""

    to: Jurisdiction = Field(description="Jurisdiction that rows may be brought to, ISO 3166-1 alpha-2.")
    basis: str = Field(
        min_length=10, description="The legal ground, so that a lawyer finds it: adequacy, clauses, consent, and where it lies."
    )
    since: date = Field(description="First day on which it holds.")
    until: date | None = Field(None, description="Last day; left out, until it is taken out of the declaration.")

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Transfer:
        if self.until is not None and self.until < self.since:
            raise ValueError(f"until {self.until} is before since {self.since}")
        return self

    def holds(self, jurisdiction: str, *, on: date) -> bool:
        """Whether it covers this jurisdiction on this day."""
        return self.to == jurisdiction and self.since <= on and (self.until is None or on <= self.until)


class DatasetSpec(Spec):
    """One dataset: where it comes from, what it promises, what is personal, which features it gives."""

    name: Name = Field(description="Unique among datasets; part of every asset key.")
    owner: str = Field(description="Who answers for it, e.g. team:revenue.")
    description: str = Field("", description="What the dataset is, for people.")
    extends: Name | None = Field(None, description="Take columns, label and views of this dataset, and add to them.")
    stands_in_for: Name | None = Field(None, description="When this dataset is provided at run time, models of that one read this.")
    source: Source = Field(description="Where rows come from.")
    columns: dict[ColumnName, Column] = Field(default_factory=dict, description="Columns to ingest, by name; others are never read.")
    key: ColumnName = Field(description="Column that names a row; made from the row's content when the source lacks it.")
    event_time: ColumnName = Field(description="Timestamp column: when the row's event happened.")
    label: Label | None = Field(None, description="The outcome that models predict.")
    subject: ColumnName | None = Field(None, description="Column that names the person a row is about: what erasure and access go by.")
    history: Span | None = Field(
        None, description="Span of known labels that is history; later events are live. Left out: everything is history, on the wall clock."
    )
    contract: Contract = Field(Contract(), description="What a delivery must fulfil.")
    views: dict[Name, FeatureView] = Field(default_factory=dict, description="Feature views by name.")
    residency: Jurisdiction = Field("AE", description="Jurisdiction, ISO 3166-1 alpha-2.")
    transfers: tuple[Transfer, ...] = Field(
        (), description="Jurisdictions beside it that rows may be brought to, each by a dated legal basis."
    )
    retention: Span | None = Field(
        None, description="How long rows may be kept, by event time on the data's clock; older ones are removed."
    )
    refresh: Cron | None = Field(None, description="Cron of the refresh schedule.")
