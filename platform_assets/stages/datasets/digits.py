"""scikit-learn's own 1,797 real handwritten digits as a dated table. Nothing is downloaded: the pictures ship with the library."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa

FIRST_SEEN = datetime(2024, 1, 1)  # noqa: DTZ001  naive UTC, as everywhere here
MINUTE_US = 60_000_000


def read_digits(seed: int) -> pa.Table:
    """Read image_id, pixels (64 floats of 0 to 16, row by row), digit ("0" to "9") and seen_at, one a minute, in a seeded order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(bunch.data[order].astype(np.float32).ravel()), 64)
    first = int(np.datetime64(FIRST_SEEN, "us").astype(np.int64))
    return pa.table(
        {
            "image_id": pa.array([f"digit-{number:04d}" for number in order], pa.string()),
            "pixels": pixels.cast(pa.list_(pa.float32())),
            "digit": pa.array(bunch.target[order].astype(str).tolist(), pa.string()),
            "seen_at": pa.array(first + np.arange(len(order)) * MINUTE_US, pa.int64()).cast(pa.timestamp("us")),
        }
    )
