"""MLServer with an onnxruntime model, in process (its cheaper mode): `python mlserver_server.py MODEL PORT`."""

import asyncio
import sys

import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(self.settings.parameters.uri, sess_options=options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = self._session.run(None, {"numeric": rows.astype("float32")})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", found)])


async def main() -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(sys.argv[2]),
        grpc_port=int(sys.argv[2]) + 1,
        metrics_port=int(sys.argv[2]) + 2,
        parallel_workers=0,
        logging_settings=None,
    )
    model = ModelSettings(name="mlp", implementation=OnnxModel, parameters=ModelParameters(uri=sys.argv[1]))
    server = MLServer(settings)
    await server.start([model])


asyncio.run(main())
