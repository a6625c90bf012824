"""KServe's ModelServer with an onnxruntime model: `python kserve_server.py MODEL PORT`."""

import sys

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class OnnxModel(Model):
    def __init__(self) -> None:
        super().__init__("mlp")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None) -> InferResponse:
        rows = payload.inputs[0].as_numpy().astype(np.float32)
        found = self._session.run(None, {"numeric": rows})[0]
        output = InferOutput("probabilities", list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=False)
        return InferResponse(response_id=payload.id or "0", model_name="mlp", infer_outputs=[output])


port = sys.argv[2]
ModelServer(http_port=int(port), enable_grpc=False, workers=1, access_log_format=None).start([OnnxModel()])
