"""Evidently's default drift report: `python evidently_drift.py FOLDER report`, or `... FOLDER windows NAME...`; JSON on the last line."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

folder, what, *names = Path(sys.argv[1]), *sys.argv[2:]
reference = pd.read_parquet(folder / "reference.parquet")


def run(current: pd.DataFrame) -> bool:
    found = Report([DataDriftPreset()]).run(current, reference).dict()
    first = next(metric for metric in found["metrics"] if "DriftedColumnsCount" in str(metric))
    return float(first["value"]["share"]) >= 0.5


started = time.process_time()
if what == "report":
    run(pd.read_parquet(folder / "tenth.parquet"))
    flags = {}
else:
    flags = {name: run(pd.read_parquet(folder / f"{name}.parquet")) for name in names}
print(json.dumps({"flags": flags, "cpu_seconds": time.process_time() - started, "version": version("evidently")}))
