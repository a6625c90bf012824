"""What the platform makes: declarations in, a governed model life as one Dagster graph out."""

import os

# onnxruntime reads it at its import, in every program of ours, also where nobody started it for us (a container, an edge box); without it
# a thread keeps a database of uses under ~/.cache and sends it home.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
