"""Compression: from a trained teacher to measured ONNX candidates. Which one becomes a release is the release stage's word."""
