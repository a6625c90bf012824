"""The server does what its OpenAPI document says: schemathesis asks it with what the document allows and with what it forbids.

FALAJ_CASES says how many requests (200); `docs/reference/security.md` has the figures of a longer run.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks

from platform_assets.stages.serving.openapi import ARROW, document
from resources.testing.serving import TINY_ROW

CASES = int(os.environ.get("FALAJ_CASES", "200"))
KEPT = ("status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance")


@schemathesis.serializer(ARROW)
def _as_they_are(ctx, value):
    return value


def told(live) -> schemathesis.BaseSchema:
    """The document as the server gives it, with models that are there or not."""
    found = requests.get(f"{live.url}/openapi.json", timeout=10)
    assert found.content == document()
    described = found.json()
    for operations in described["paths"].values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "model":
                    parameter["schema"] = {"enum": ["tiny", "absent"]}
    return schemathesis.openapi.from_dict(described)


def ways(schema: schemathesis.BaseSchema) -> list[st.SearchStrategy]:
    """Every operation with right requests and, where there is anything to get wrong, with wrong ones."""
    made = []
    for found in schema.get_all_operations():
        operation = found.ok()
        made.append(operation.as_strategy(schemathesis.GenerationMode.POSITIVE))
        if operation.body or "{" in operation.path:
            made.append(operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
    return made


def test_every_answer_is_one_that_the_document_promises_and_none_tells_a_secret(live):
    load_all_checks()
    checks = [CHECKS.get_one(name) for name in KEPT]
    every, some = live.token("predict", "admin"), live.token("predict:absent")
    secrets = [every, some, (live.settings.home.keys / "tokens.key.pem").read_text().splitlines()[1], "Traceback"]
    process, memory, statuses = psutil.Process(live.process.pid), [], Counter()
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=CASES, database=None, deadline=None, derandomize="FALAJ_CASES" not in os.environ, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=st.one_of(ways(told(live))), token=st.sampled_from([every, every, every, some, "none", None]))
    def ask(case, token):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = case.call(base_url=live.url, headers=headers, session=session, timeout=30)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        assert not [secret for secret in secrets if secret in answer.text]
        case.validate_response(answer, checks=checks)
        if statuses.total() % 50 == 0:
            memory.append(process.memory_info().rss)

    ask()
    print(dict(statuses), [rss >> 20 for rss in memory[:: max(1, len(memory) // 10)]])
    assert statuses.total() >= CASES * 0.9
    assert statuses[200] > CASES * 0.1
    assert statuses[400] > CASES * 0.05
    assert memory[-1] - memory[0] < 16 << 20
    assert live.target.status("tiny")["live"]


@pytest.mark.parametrize(
    ("path", "asked", "name"),
    [
        ("/v1/models/tiny:predict", {"rows": [TINY_ROW]}, "Predictions"), ("/v1/models/tiny:predict", {"rows": [TINY_ROW], "reasons": True}, "Predictions"),
        ("/v2/models/tiny", None, "Metadata"), ("/v2/models/tiny/ready", None, "Ready"), ("/admin/models/tiny", None, "Status"),
    ],
)  # fmt: skip
def test_what_a_right_request_gets_is_described(live, path, asked, name):
    from jsonschema import Draft202012Validator

    described = json.loads(document())
    headers = {"authorization": f"Bearer {live.token('predict', 'admin')}"}
    answer = requests.request("GET" if asked is None else "POST", live.url + path, json=asked, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    Draft202012Validator({**described, "$ref": f"#/components/schemas/{name}"}).validate(answer.json())
