"""How well a protected table hides a person among others.

k-anonymity (Sweeney 2002) and distinct l-diversity (Machanavajjhala, Kifer, Gehrke and Venkitasubramaniam 2007).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow as pa

    from platform_assets.specs.dataset import DatasetSpec

SMALL = 5  # rows in a class of fewer are told: a usual bound for what may be published


@dataclass(frozen=True)
class Anonymity:
    """Over classes of rows that are equal in all `quasi` columns.

    `k` is the size of the smallest class, `l` the fewest different values of `sensitive` in one (0 where nothing is declared sensitive),
    `few` the rows in classes of fewer than SMALL.
    """

    quasi: tuple[str, ...]
    sensitive: str
    rows: int
    classes: int
    k: int
    l: int  # noqa: E741 - the measure's own name
    few: int

    def as_record(self) -> dict[str, Any]:
        """Return the figures with the sentence that a person reads."""
        diverse = f", l-diversity {self.l} of {self.sensitive}" if self.sensitive else ""
        share = self.few / self.rows if self.rows else 0.0
        sentence = (
            f"k-anonymity {self.k}{diverse} over {', '.join(self.quasi)}: {self.classes} classes of {self.rows} rows, "
            f"{self.few} rows ({share:.1%}) in classes of fewer than {SMALL}"
        )
        return {**asdict(self), "quasi": list(self.quasi), "sentence": sentence}


def measure_anonymity(rows: pa.Table, *, dataset: DatasetSpec) -> Anonymity | None:
    """Measure protected rows over the declared `quasi` columns, the label being what is sensitive; None where none is declared or left."""
    quasi = tuple(name for name, column in dataset.columns.items() if column.quasi and name in rows.column_names)
    if not quasi or not rows.num_rows:
        return None
    label = dataset.label.column if dataset.label and dataset.label.column in rows.column_names else ""
    asked: list[Any] = [([], "count_all"), *([(label, "count_distinct", pc.CountOptions(mode="only_valid"))] if label else [])]
    classes = rows.group_by(list(quasi)).aggregate(asked)
    sizes = classes["count_all"]
    least = pc.min(classes[f"{label}_count_distinct"]).as_py() if label else 0
    few = pc.sum(pc.if_else(pc.less(sizes, SMALL), sizes, 0)).as_py()
    return Anonymity(quasi, label, rows.num_rows, classes.num_rows, pc.min(sizes).as_py(), least, few)
