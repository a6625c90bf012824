"""NannyML's univariate drift calculator with its defaults: `python nannyml_drift.py FOLDER windows NAME...`; JSON on the last line."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nannyml
import pandas as pd

folder, _, *names = Path(sys.argv[1]), *sys.argv[2:]
started = time.process_time()
reference = pd.read_parquet(folder / "reference.parquet")
calculator = nannyml.UnivariateDriftCalculator(column_names=list(reference.columns), chunk_size=2000).fit(reference)
flags = {}
for name in names:
    found = calculator.calculate(pd.read_parquet(folder / f"{name}.parquet")).filter(period="analysis").to_df()
    alerts = [column for column in found.columns if column[-1] == "alert"]
    flags[name] = bool(found[alerts].to_numpy().any())
print(json.dumps({"flags": flags, "cpu_seconds": time.process_time() - started, "version": version("nannyml")}))
