"""Networks: preprocessing, architectures, the fitting loop, checkpoints and the export to ONNX.

Below the stages, so that training and compression build on the same code without knowing each other.
Needs torch, lightning, numpy and pyarrow alone (`onnx` only in `export`). No search, no program, no Dagster.
"""
