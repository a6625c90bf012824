"""Students: networks made to be small in every respect. Each is taught in torch and writes its own ONNX graph, of a dozen nodes.

Beside `forward(numeric, ids, image) -> logits` a student offers `write(preprocessing) -> ModelProto`.
"""
