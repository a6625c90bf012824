"""The CPU inference server. Needs only the standard library, numpy, onnxruntime, httptools, orjson, uvloop, PyJWT and cryptography.

Neither torch, dagster, pydantic nor a data library is ever imported here: the serving image is built from this room alone.
"""
