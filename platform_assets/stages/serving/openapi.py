"""The server's HTTP interface as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0), served at /openapi.json. Data alone.

A test asks a running server what the document promises, with requests that it allows and others, and holds every answer against it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from platform_assets.stages.serving.access import ADMIN, PREDICT
from platform_assets.stages.serving.replies import SERVER_VERSION
from platform_assets.stages.serving.traffic import MODES

JSON, ARROW, BINARY = "application/json", "application/vnd.apache.arrow.stream", "application/octet-stream"
_Schema = dict[str, Any]
_REFUSALS = {
    "400": "The request is wrong; the sentence names the field", "401": "No token, or not a valid one",
    "403": "The token's scopes do not reach so far",
    "404": "No such path, model or version", "405": "The path is asked with another method, which the header `allow` names",
    "408": "The request was not complete in time", "413": "The body is too long", "431": "The head is too long",
    "503": "The queue is full, the deadline passed, or nothing is ready; ask again after `retry-after` seconds",
}  # fmt: skip


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return orjson.dumps({
        "openapi": "3.1.0", "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "Falaj inference server", "version": SERVER_VERSION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Predictions of released models, by named rows or by Open Inference Protocol V2 (REST). "
            "Models, columns and classes are asked of /v2/models/{model}.",
        },
        "paths": {**_predictions(), **_models(), **_looking(), **_administration()},
        "components": {"securitySchemes": {"token": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": f"Scopes {PREDICT}, {PREDICT}:MODEL, {ADMIN}. On loopback {PREDICT} needs none, unless the server demands it.",
        }}, "schemas": _SCHEMAS},
        "security": [{"token": []}],
    })  # fmt: skip


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], properties: dict[str, Any], **more: Any) -> _Schema:
    return {"type": "object", "required": required, "properties": properties, **more}


def _list(of: _Schema, **more: Any) -> _Schema:
    return {"type": "array", "items": of, **more}


def _operation(
    name: str, summary: str, answers: dict[str, _Schema], *, model: bool = True, version: bool = False,
    body: dict[str, _Schema] | None = None, headers: tuple[_Schema, ...] = (), unready: _Schema | None = None, secured: bool = True,
) -> _Schema:  # fmt: skip
    """Describe one operation: `answers` by media type, `unready` what 503 says where it is no error."""
    refusals = {
        status: {"description": text, "content": {JSON: {"schema": _ref("Error")}}} for status, text in _REFUSALS.items()
    }  # fmt: skip
    if unready is not None:
        refusals["503"] = {"description": "Not ready", "content": {JSON: {"schema": {"anyOf": [unready, _ref("Error")]}}}}
    found: _Schema = {
        "operationId": name, "summary": summary,
        "parameters": [*([_MODEL] if model else []), *([_VERSION] if version else []), *headers],
        "responses": {
            "200": {"description": "Answered", "content": {kind: {"schema": schema} for kind, schema in answers.items()}}, **refusals,
        },
    }  # fmt: skip
    if body is not None:
        found["requestBody"] = {"required": True, "content": {kind: {"schema": schema} for kind, schema in body.items()}}
    return found if secured else {**found, "security": []}


_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}}
_VERSION = {
    "name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
    "description": "The digits that a release's digest begins with",
}  # fmt: skip
_TIMEOUT = {
    "name": "x-timeout-ms", "in": "header", "schema": {"type": "integer", "minimum": 1, "maximum": 60_000},
    "description": "Milliseconds that an answer may take",
}  # fmt: skip
_HEADER_LENGTH = {
    "name": "inference-header-content-length", "in": "header", "schema": {"type": "integer", "minimum": 0},
    "description": "Bytes of JSON before binary tensors",
}  # fmt: skip
_BYTES: _Schema = {"type": "string", "format": "binary"}
_TEXT: _Schema = {"type": "string"}
_DIGEST: _Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_PROBABILITY: _Schema = {"type": "number", "minimum": 0, "maximum": 1}

_SCHEMAS: dict[str, _Schema] = {
    "Error": _object(["error"], {"error": {"type": "string", "description": "One sentence"}}),
    "Rows": _object([], {
        "rows": _list({"type": "object", "description": "A value for each column; null or left out is missing"}, minItems=1),
        "columns": {"type": "object", "additionalProperties": _list({}), "minProperties": 1, "description": "As many values in each"},
        "reasons": {"type": "boolean", "default": False},
    }, oneOf=[{"required": ["rows"]}, {"required": ["columns"]}], additionalProperties=False),
    "Predictions": _object(["model", "version", "request_id", "predictions"], {
        "model": _TEXT, "version": _TEXT, "request_id": _TEXT, "predictions": _list(_ref("Prediction")),
    }, additionalProperties=False),
    "Prediction": _object(["label", "probability", "probabilities"], {
        "label": _TEXT, "probability": _PROBABILITY, "probabilities": {"type": "object", "additionalProperties": _PROBABILITY},
        "reasons": _ref("Reasons"),
    }, additionalProperties=False),
    "Reasons": _object(["label", "probability", "reference_probability", "method", "left_over", "contributions"], {
        "contributions": _list(_object(["column", "value", "reference", "contribution", "error"], {"column": _TEXT})),
    }),
    "Tensor": _object(["name", "datatype", "shape"], {
        "name": _TEXT, "datatype": _TEXT, "shape": _list({"type": "integer", "minimum": 1}, minItems=2, maxItems=2),
        "parameters": _object([], {"binary_data_size": {"type": "integer", "minimum": 0}}), "data": _list({}),
    }),
    "Inference": _object(["inputs"], {
        "id": _TEXT, "inputs": _list(_ref("Tensor"), minItems=1),
        "parameters": _object([], {
            "binary_data_output": {"type": "boolean"}, "reasons": {"type": "boolean"},
            "timeout": {"type": "integer", "minimum": 1, "description": "Microseconds"},
        }),
        "outputs": _list(_object(["name"], {
            "name": {"enum": ["probabilities", "label"]}, "parameters": _object([], {"binary_data": {"type": "boolean"}}),
        })),
    }),
    "Inferred": _object(["model_name", "model_version", "id", "outputs"], {
        "model_name": _TEXT, "model_version": _TEXT, "id": _TEXT,
        "outputs": _list(_object(["name", "datatype", "shape"], {
            "name": {"enum": ["probabilities", "label", "reasons"]}, "datatype": {"enum": ["FP32", "BYTES"]},
            "shape": _list({"type": "integer"}), "data": _list({}),
        })),
    }),
    "Metadata": _object(["name", "versions", "platform", "inputs", "outputs"], {
        name: _list(_object(["name", "datatype", "shape"], {"name": _TEXT, "datatype": _TEXT, "shape": _list({"type": "integer"})}))
        for name in ("inputs", "outputs")
    } | {"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT}),
    "Ready": _object(["name", "ready"], {"name": _TEXT, "ready": {"type": "boolean"}}),
    "Traffic": _object(["live"], {
        "live": _DIGEST, "challenger": {"anyOf": [_DIGEST, {"type": "null"}]}, "mode": {"enum": list(MODES)},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
    }, additionalProperties=False),
    "Status": _object(["model", "live", "challenger", "mode", "percent", "previous", "loaded", "arms", "fault"], {
        "model": _TEXT, "mode": {"enum": list(MODES)}, "percent": {"type": "integer"}, "loaded": _list(_DIGEST), "arms": {"type": "object"},
    }),
}  # fmt: skip


def _predictions() -> dict[str, _Schema]:
    body: dict[str, _Schema] = {JSON: _ref("Inference"), BINARY: _BYTES}
    headers = (_TIMEOUT, _HEADER_LENGTH)
    answers = {JSON: _ref("Inferred"), BINARY: _BYTES}
    return {
        "/v1/models/{model}:predict": {"post": _operation(
            "predict", "Predict named rows", {JSON: _ref("Predictions"), ARROW: _BYTES}, body={JSON: _ref("Rows"), ARROW: _BYTES},
            headers=(_TIMEOUT,),
        )},
        "/v2/models/{model}/infer": {"post": _operation("infer", "Predict tensors", answers, body=body, headers=headers)},
        "/v2/models/{model}/versions/{version}/infer": {
            "post": _operation("inferByVersion", "Predict tensors by one version", answers, version=True, body=body, headers=headers)
        },
    }  # fmt: skip


def _models() -> dict[str, _Schema]:
    made = {}
    for version, path, suffix in ((False, "/v2/models/{model}", ""), (True, "/v2/models/{model}/versions/{version}", "OfVersion")):
        made[path] = {
            "get": _operation(f"metadata{suffix}", "Names, types and shapes of tensors", {JSON: _ref("Metadata")}, version=version)
        }
        made[f"{path}/ready"] = {"get": _operation(
            f"ready{suffix}", "Whether it answers", {JSON: _ref("Ready")}, version=version, unready=_ref("Ready")
        )}  # fmt: skip
    return made


def _looking() -> dict[str, _Schema]:
    def of(name: str, summary: str, kind: str, schema: _Schema) -> _Schema:
        return {"get": _operation(name, summary, {kind: schema}, model=False)}

    def health(what: str) -> _Schema:
        schema = _object([what], {what: {"type": "boolean"}})
        return {"get": _operation(what, f"Whether the server is {what}", {JSON: schema}, model=False, unready=schema, secured=False)}

    server = _object(["name", "version", "extensions"], {"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)})
    return {
        "/": of("page", "Versions, traffic, latency and drift, for people", "text/html", _TEXT),
        "/status": of("status", "The same for programs", JSON, _object(["server", "models"], {})),
        "/metrics": of("metrics", "Prometheus text format 0.0.4", "text/plain", _TEXT),
        "/openapi.json": of("openapi", "This document", JSON, {"type": "object"}),
        "/v2": of("server", "Name, version and extensions", JSON, server),
        "/v2/health/live": health("live"),
        "/v2/health/ready": health("ready"),
    }


def _administration() -> dict[str, _Schema]:
    load = _object(["digest", "path"], {"digest": _DIGEST, "path": {"type": "string", "description": "Absolute path of its folder"}})
    segments = _object(["segments"], {})
    return {
        "/admin/models/{model}": {"get": _operation("show", "Where traffic goes, and what was measured", {JSON: _ref("Status")})},
        "/admin/models/{model}/load": {
            "post": _operation("load", "Load a release and verify it", {JSON: _ref("Status")}, body={JSON: load})
        },
        "/admin/models/{model}/traffic": {
            "post": _operation("traffic", "Set who answers", {JSON: _ref("Status")}, body={JSON: _ref("Traffic")})
        },
        "/admin/models/{model}/rotate": {"post": _operation("rotate", "Begin a new segment of the prediction log", {JSON: segments})},
    }
