"""A Feast data source that is one exact version of a Delta table. Feast loads this module by its dotted path."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from feast import type_map
from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto

from resources.delta_tables import open_dataset, open_delta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pyarrow as pa
    from feast.repo_config import RepoConfig
    from feast.value_type import ValueType


class DeltaSource(DataSource):
    """One version of a Delta table: the version is part of the source, so a registry never means `latest`."""

    def __init__(self, *, name: str, path: str, version: int, timestamp_field: str, created_timestamp_column: str = "") -> None:
        super().__init__(name=name, timestamp_field=timestamp_field, created_timestamp_column=created_timestamp_column)
        self.path = path
        self.version = version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeltaSource) and super().__eq__(other) and (self.path, self.version) == (other.path, other.version)

    def __hash__(self) -> int:
        return hash((self.name, self.path, self.version))

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Tell Feast that this source is not one of its own."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DeltaSource:
        """Read the source from Feast's registry."""
        options = json.loads(data_source.custom_options.configuration)
        return DeltaSource(
            name=data_source.name,
            path=options["path"],
            version=options["version"],
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = json.dumps({"path": self.path, "version": self.version}, sort_keys=True).encode()
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{__name__}.{type(self).__name__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=options),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
        )

    def validate(self, config: RepoConfig) -> None:  # noqa: ARG002 Feast's signature
        """Open the table at its version; deltalake's error names what is missing."""
        self._open()

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Return Feast's mapping from Arrow type names."""
        mapping: Callable[[str], ValueType] = type_map.pa_to_feast_value_type
        return mapping

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:  # noqa: ARG002 Feast's signature
        """Return columns and Arrow type names of the pinned version."""
        return [(field.name, str(field.type)) for field in open_dataset(self._open()).schema]

    def get_table_query_string(self) -> str:
        """Name the table for a log; no engine of ours reads it as SQL."""
        return f"{self.path}@{self.version}"

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read exactly this version's columns."""
        return open_dataset(self._open()).to_table(columns=list(columns))

    def _open(self) -> Any:
        return open_delta(self.path, version=self.version)
