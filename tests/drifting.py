"""Streams whose drifts are known: what the replay's policy is tried on beside the real ones."""

import numpy as np
import pyarrow as pa

KINDS = ("stable", "abrupt", "gradual", "recurring", "correlation")


def drifting_table(kind: str, *, rows: int = 8_000, seed: int = 11, target: str = "binary") -> pa.Table:
    """Rows of five numbers and a category in order of time; what the target hangs on turns as `kind` says, at half of the rows."""
    rng = np.random.default_rng(seed)
    share = np.arange(rows) / rows
    inputs = rng.normal(size=(rows, 5))
    late = share >= 0.5
    if kind == "correlation":
        inputs[:, 1] = np.where(late, -0.9, 0.9) * inputs[:, 0] + 0.44 * inputs[:, 1]
    turn = {
        "stable": np.zeros(rows), "correlation": np.zeros(rows), "abrupt": np.where(late, 1.0, 0.0),
        "gradual": np.clip((share - 0.3) / 0.5, 0, 1), "recurring": (np.floor(share * 8) % 2),
    }[kind]  # fmt: skip
    angle = turn * np.pi * 0.75
    signal = 2 * (np.cos(angle) * inputs[:, 0] + np.sin(angle) * inputs[:, 1]) + inputs[:, 2] * inputs[:, 3]
    if kind == "correlation":
        signal = np.abs(inputs[:, 0] + inputs[:, 1]) * 2 - 1.5 + 0.5 * inputs[:, 2]
    noisy = signal + rng.normal(scale=0.7, size=rows)
    outcome = {"binary": noisy > 0, "multiclass": np.digitize(noisy, [-1, 1]), "regression": noisy * 10}[target]
    columns = {f"x{place}": inputs[:, place] for place in range(5)}
    words = np.array(["north", "south", "west"])[rng.integers(0, 3, rows)]
    moments = np.datetime64("2025-01-01") + np.arange(rows) * np.timedelta64(600, "s")
    return pa.table({"at": moments.astype("datetime64[us]"), **columns, "region": words, "y": outcome})
