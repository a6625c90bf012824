"""The feed: what a training step is given, from shards on disk to this process's part of each global batch.

Order, cache, encoding and batches; what a batch is used for lives in `fitting`. Needs torch, numpy and pyarrow alone.
"""
