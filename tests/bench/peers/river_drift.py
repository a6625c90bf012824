"""river's ADWIN on each number, fed the reference and then a window: `python river_drift.py FOLDER windows NAME...`; JSON on the last line."""

import copy
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from river.drift import ADWIN

folder, _, *names = Path(sys.argv[1]), *sys.argv[2:]
started = time.process_time()
reference = pq.read_table(folder / "reference.parquet")
fed = {}
for field in reference.schema:
    if str(field.type) == "double":
        fed[field.name] = ADWIN()
        for value in reference[field.name].drop_null().to_pylist():
            if not math.isnan(value):
                fed[field.name].update(value)
flags = {}
for name in names:
    window, flags[name] = pq.read_table(folder / f"{name}.parquet"), False
    for column, detector in fed.items():
        mine = copy.deepcopy(detector)
        for value in window[column].drop_null().to_pylist():
            if not math.isnan(value):
                mine.update(value)
                if mine.drift_detected:
                    flags[name] = True
                    break
print(json.dumps({"flags": flags, "cpu_seconds": time.process_time() - started, "version": version("river")}))
