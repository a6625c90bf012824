"""Triton through pytriton with an onnxruntime function and dynamic batching: `python triton_server.py MODEL PORT`."""

import sys

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"])


@batch
def infer(numeric: np.ndarray) -> list[np.ndarray]:
    return [session.run(None, {"numeric": numeric})[0]]


port = int(sys.argv[2])
with Triton(config=TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, log_verbose=0)) as triton:
    triton.bind(
        model_name="mlp",
        infer_func=infer,
        inputs=[Tensor(name="numeric", dtype=np.float32, shape=(64,))],
        outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(2,))],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
    )
    triton.serve()
