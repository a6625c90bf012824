"""whylogs' default drift scores on profiles: `python whylogs_drift.py FOLDER windows NAME...`; JSON on the last line."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import whylogs
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

folder, _, *names = Path(sys.argv[1]), *sys.argv[2:]
started = time.process_time()
reference = whylogs.log(pd.read_parquet(folder / "reference.parquet")).view()
flags = {}
for name in names:
    current = whylogs.log(pd.read_parquet(folder / f"{name}.parquet")).view()
    scores = calculate_drift_scores(target_view=current, reference_view=reference, with_thresholds=True)
    flags[name] = any(score and score["drift_category"] == "DRIFT" for score in scores.values())
print(json.dumps({"flags": flags, "cpu_seconds": time.process_time() - started, "version": version("whylogs")}))
