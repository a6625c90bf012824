"""`falaj predict`: every row of a file through a release, in this process. Neither Dagster nor the server is needed, and none is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_assets.components.tree import load_tree
from platform_assets.errors import DataError, Fault, ReleaseError, SourceError, SpecError
from platform_assets.main_job.releases import recorded_live, released_digests
from platform_assets.specs.dataset import Column, DatasetSpec
from resources.batch_files import RowFile, write_rows
from resources.parts import Parts, build_parts
from resources.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from platform_assets.specs.records import Feature, FeatureSchema
    from platform_assets.stages.scoring.scorer import Scorer

_TYPES = {"numeric": "number", "date": "timestamp", "category": "string", "text": "text"}  # of features that the dataset does not declare
_MISSING_TEXTS = ("", "NULL", "null")  # as the contract's casts read them
Prepare = Callable[["pa.RecordBatch"], "pa.RecordBatch"]


@dataclass(frozen=True)
class Scored:
    """What became of a file."""

    version: str
    rows: int


def predict_file(settings: Settings, model: str, file: Path, *, out: Path, version: str | None = None) -> Scored:
    """Score a file into another one, which appears whole or not at all; memory does not grow with the rows."""
    scorer, batches = _open(settings, model, file, version=version)
    rows = write_rows(out, (_as_batch(_columns(scorer, batch, found, file)) for batch, found in batches))
    return Scored(scorer.version, rows)


def predict_rows(settings: Settings, model: str, file: Path, *, version: str | None = None) -> Iterator[dict[str, Any]]:
    """Score a file; yield one answer a row, as the server would give it, with the key where the file has it."""
    scorer, batches = _open(settings, model, file, version=version)
    classes, key = scorer.schema.classes, scorer.schema.key
    for batch, found in batches:
        names = batch.column(key).to_pylist() if key in batch.schema.names else None
        for at, shares in enumerate(found.tolist()):
            highest = max(shares)
            told = {key: names[at]} if names is not None else {}
            yield {
                **told, "version": scorer.version, "label": classes[shares.index(highest)], "probability": highest,
                "probabilities": dict(zip(classes, shares, strict=True)),
            }  # fmt: skip


def _open(settings: Settings, model: str, file: Path, *, version: str | None) -> tuple[Scorer, Iterator[tuple[pa.RecordBatch, np.ndarray]]]:
    from platform_assets.stages.scoring.scorer import BATCH_ROWS, Scorer

    parts = build_parts(settings, load_tree(settings.defs_root, settings))
    if model not in parts.catalogue.models:
        raise SpecError([Fault("falaj", model, f"no model of this name; declared: {', '.join(sorted(parts.catalogue.models))}")])
    rows = RowFile(file)
    scorer = Scorer(parts.releases.open(_choose(parts, model, version)), threads=len(os.sched_getaffinity(0)))
    plan = _Plan(scorer.schema, rows, dataset=parts.catalogue.dataset_of(model), online=_online(parts))
    batches = rows.read(plan.wanted, batch_rows=BATCH_ROWS, dictionaries=plan.dictionaries)
    return scorer, scorer.answer(batches, prepare=plan.prepare)


def _choose(parts: Parts, model: str, version: str | None) -> str:
    """Digest of the release that is live, or of a named version."""
    released = released_digests(parts.audit, model)
    wanted = recorded_live(parts.audit, model) if version is None else next((one for one in released if one[:12] == version), None)
    if wanted is None:
        known = ", ".join(dict.fromkeys(one[:12] for one in released)) or "none was made yet"
        raise ReleaseError(f"{model} has no {f'release {version}' if version else 'live release'}; releases: {known}.")
    return wanted


def _online(parts: Parts) -> Callable[[str, list[str]], list[dict[str, Any] | None]]:
    from resources.feast_store.values import open_values, place_of

    values = open_values(place_of(parts.settings))

    def read(view: str, entities: list[str]) -> list[dict[str, Any] | None]:
        reader = values.reader()  # connections belong to the thread that made them
        try:
            return reader.read_many(view, entities)
        finally:
            reader.close()

    return read


class _Plan:
    """Where each feature comes from: a column of the file, else the online store by the entity's column."""

    def __init__(
        self,
        schema: FeatureSchema,
        rows: RowFile,
        *,
        dataset: DatasetSpec,
        online: Callable[[str, list[str]], list[dict[str, Any] | None]],
    ) -> None:
        self._schema, self._where, self._online = schema, str(rows.path), online
        self._columns = {feature.name: dataset.columns.get(feature.name) or _column_of(feature) for feature in schema.features}
        self._given = [feature for feature in schema.features if feature.name in rows.names]
        looked_up = [feature for feature in schema.features if feature.name not in rows.names]
        own = [feature for feature in looked_up if feature.entity == schema.key or not schema.online]
        names = [feature.name for feature in own]
        names += [feature.entity for feature in looked_up if feature not in own and feature.entity not in rows.names]
        if names := list(dict.fromkeys(names)):
            raise SourceError(
                f"{rows.path} lacks {'columns' if len(names) > 1 else 'column'} {', '.join(names)}, which the model reads; it has "
                f"{', '.join(rows.names)}: add what is missing, empty where it is not known"
            )
        self._views: dict[tuple[str, str], list[Feature]] = {}
        for feature in looked_up:
            self._views.setdefault((feature.view, feature.entity), []).append(feature)
        entities = [entity for _, entity in self._views]
        keys = [schema.key] if schema.key in rows.names else []
        self.wanted = list(dict.fromkeys([*keys, *(feature.name for feature in self._given), *entities]))
        self.dictionaries = [feature.name for feature in self._given if feature.kind == "category"]

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give every feature as a column of a type that scoring reads, and the key as it came."""
        columns = {feature.name: self._read(batch.column(feature.name), feature) for feature in self._given}
        for (view, entity), features in self._views.items():
            columns |= self._look_up(batch.column(entity), view=view, features=features)
        if self._schema.key in batch.schema.names and self._schema.key not in columns:
            columns[self._schema.key] = batch.column(self._schema.key)
        return _as_batch(columns)

    def _read(self, column: pa.Array, feature: Feature) -> pa.Array:
        import pyarrow as pa

        types = pa.types
        if feature.kind == "category":
            text = column.type.value_type if types.is_dictionary(column.type) else column.type
            if types.is_string(text) and self._columns[feature.name].type == "string":
                return _known_values(column)
            return _known_values(self._cast(column, feature))
        if feature.kind == "numeric" and (types.is_floating(column.type) or types.is_integer(column.type)):
            return column
        if feature.kind == "date" and types.is_timestamp(column.type) and column.type.tz is None:
            return column
        return self._cast(column, feature)

    def _cast(self, column: pa.Array, feature: Feature) -> pa.Array:
        import pyarrow as pa

        from platform_assets.stages.datasets.columns import conform

        declared = {feature.name: self._columns[feature.name]} if feature.kind != "image" else None
        if declared is None:
            return column
        return conform(pa.table({feature.name: column}), columns=declared, where=self._where)[feature.name].combine_chunks()

    def _look_up(self, entities: pa.Array, *, view: str, features: list[Feature]) -> dict[str, pa.Array]:
        """Newest values of other entities from the online store, each different one asked once; missing where it is not known."""
        import pyarrow as pa
        import pyarrow.compute as pc

        coded = entities.cast(pa.string()).dictionary_encode()
        rows = self._online(view, coded.dictionary.to_pylist())
        columns = {}
        for feature in features:
            values = pa.array([row and row.get(feature.name) for row in rows], _online_type(feature))
            columns[feature.name] = pc.take(values, coded.indices)
        return columns


def _as_batch(columns: dict[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _column_of(feature: Feature) -> Column:
    return Column(type=_TYPES.get(feature.kind, "string"))


def _online_type(feature: Feature) -> pa.DataType:
    import pyarrow as pa

    if feature.kind == "image":
        return pa.list_(pa.float32())
    return pa.string() if feature.kind in ("category", "text") else pa.float64()  # dates are days already


def _known_values(column: pa.Array) -> pa.DictionaryArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    from platform_assets.stages.scoring.arrow import as_texts

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.string())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values = column.dictionary
    missing = pc.is_in(values, value_set=as_texts(_MISSING_TEXTS))
    return pa.DictionaryArray.from_arrays(column.indices, pc.if_else(missing, as_texts([""])[0], values))


def _columns(scorer: Scorer, batch: pa.RecordBatch, found: np.ndarray, file: Path) -> dict[str, Any]:
    from platform_assets.stages.scoring.scorer import answers_as_columns

    answers = answers_as_columns(found, classes=scorer.schema.classes)
    key = scorer.schema.key
    if key not in batch.schema.names:
        return answers
    if key in answers:
        raise DataError(f"{file}: the key column {key} has the name of a column of answers; rename it")
    return {key: batch.column(key), **answers}
