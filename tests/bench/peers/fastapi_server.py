"""FastAPI, tuned: uvloop, httptools, orjson, no validation: `python fastapi_server.py MODEL PORT`."""

import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/v2/models/mlp/infer")
async def infer(request: Request) -> Response:
    tensor = orjson.loads(await request.body())["inputs"][0]
    found = session.run(None, {"numeric": np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])})[0]
    output = {"name": "probabilities", "datatype": "FP32", "shape": list(found.shape), "data": found.ravel().tolist()}
    return Response(orjson.dumps({"model_name": "mlp", "outputs": [output]}), media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), loop="uvloop", http="httptools", access_log=False, log_level="error")
