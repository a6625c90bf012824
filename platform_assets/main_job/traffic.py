"""Live traffic: a dataset's events after its history, in order, asked of the inference server as a client would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from platform_assets.specs.catalogue import request_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.specs.dataset import DatasetSpec
    from platform_assets.specs.model import ModelSpec
    from resources.serving import PredictClient

REQUEST_ROWS = 50


@dataclass
class Stream:
    """The events still to come, and the outcomes as they will turn out."""

    model: ModelSpec
    dataset: DatasetSpec
    rows: pa.Table
    position: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Events not sent yet."""
        return int(self.rows.num_rows - self.position)

    def send(self, client: PredictClient, count: int, *, request_rows: int = REQUEST_ROWS) -> datetime:
        """Send the next `count` events; return the time of the last one. A refused request is kept with its reason."""
        chunk = self.rows.slice(self.position, count)
        for request in _requests(chunk.select(sorted(request_columns(self.model, self.dataset))), request_rows):
            try:
                client.predict(self.model.name, request)
            except client.Refused as error:
                self.failed.append(str(error))
        self.position += chunk.num_rows
        newest: datetime = chunk.column(self.dataset.event_time)[-1].as_py()
        return newest


def _requests(rows: pa.Table, size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size).to_pylist()
