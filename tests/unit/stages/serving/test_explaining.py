"""A request may ask for reasons: named by column, of the version that answered, beside everybody else's requests."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from serving_process import MODEL

from platform_assets.errors import RequestError
from resources.testing.serving import TINY_ROW

PATH = f"/v1/models/{MODEL}:predict"
COLUMNS = {"lead_time", "adr", "arrival_date", "market_segment", "mean_adr_90d"}


def test_reasons_add_up_to_the_difference_from_the_typical_row_and_the_answer_is_the_usual_one(live):
    with live.client() as client:
        plain = client.predict(MODEL, [TINY_ROW])["predictions"][0]
        asked = {"rows": [TINY_ROW, {**TINY_ROW, "lead_time": 300}], "reasons": True}
        found = client.request("POST", PATH, asked)
        assert client.request("POST", PATH, {"rows": [TINY_ROW], "reasons": False})["predictions"][0] == plain
    first = found["predictions"][0]
    reasons = first.pop("reasons")
    assert first == plain
    assert {one["column"] for one in reasons["contributions"]} == COLUMNS
    assert reasons["probability"] == pytest.approx(plain["probability"])
    told = sum(one["contribution"] for one in reasons["contributions"])
    assert told == pytest.approx(reasons["probability"] - reasons["reference_probability"], abs=1e-5)
    by_column = {one["column"]: one for one in reasons["contributions"]}
    assert by_column["adr"]["contribution"] == 0.0  # the typical row has the same
    assert (by_column["lead_time"]["value"], by_column["lead_time"]["reference"]) == (30, 60)
    assert by_column["lead_time"]["contribution"] != 0.0
    assert found["predictions"][1]["reasons"]["contributions"] != reasons["contributions"]
    live.target.rotate_log(MODEL)
    assert live.target.log_counts(MODEL).written == 4


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"rows": [TINY_ROW], "reasons": "yes"}, "field 'reasons': found 'yes'; right would be true or false"),
        ({"rows": [TINY_ROW] * 17, "reasons": True}, "the request holds 17 rows; at most 16 are explained at once"),
        ({"rows": [{**TINY_ROW, "adr": "dear"}], "reasons": True}, "field 'adr', row 0: found text 'dear'"),
        ({"reasons": True}, "the body has the fields \\[\\]"),
        ({"rows": [TINY_ROW], "columns": {}, "reasons": True}, "exactly one field, 'rows' or 'columns'"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_sentence(live, body, said):
    with live.client() as client, pytest.raises(RequestError, match=said):
        client.request("POST", PATH, body)


def test_others_are_answered_while_reasons_are_found_and_the_queue_is_bounded(live):
    refused, explained = [], []

    def ask():
        with live.client() as client:
            try:
                found = client.request("POST", PATH, {"rows": [TINY_ROW] * 16, "reasons": True})
                explained.append(len(found["predictions"]))
            except Exception as error:  # noqa: BLE001 - what it says is looked at below
                refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    with live.client() as client:
        answers = [client.predict(MODEL, [TINY_ROW])["predictions"][0]["label"] for _ in range(20)]
    for thread in threads:
        thread.join(60)
    assert len(answers) == 20
    assert len(explained) + len(refused) == 24
    assert set(explained) == {16}
    assert all("requests wait to be explained, 8 is the bound" in one for one in refused)
    with live.client() as client:
        assert "reasons" in client.request("POST", PATH, {"rows": [TINY_ROW], "reasons": True})["predictions"][0]


def tensors(**asked):
    shape = {"shape": [2, 4], "datatype": "FP32", "data": [30.0, 80.0, 17_000.0, 90.0, 300.0, 80.0, 17_000.0, 90.0]}
    texts = {"name": "categorical", "shape": [2, 1], "datatype": "BYTES", "data": ["Direct", "Groups"]}
    return {"inputs": [{"name": "numeric", **shape}, texts], **asked}


def test_reasons_of_tensors_are_a_tensor_of_texts_beside_the_usual_ones(live):
    path = f"/v2/models/{MODEL}/infer"
    with live.client() as client:
        plain = client.request("POST", path, tensors())["outputs"]
        found = client.request("POST", path, tensors(parameters={"reasons": True}))["outputs"]
        with pytest.raises(RequestError, match="reasons come as JSON"):
            client.request("POST", path, tensors(parameters={"reasons": True, "binary_data_output": True}))
        with pytest.raises(RequestError, match="reasons is 1; right would be true or false"):
            client.request("POST", path, tensors(parameters={"reasons": 1}))
    assert found[:2] == plain
    assert (found[2]["name"], found[2]["datatype"], found[2]["shape"]) == ("reasons", "BYTES", [2])
    for text, label, shares in zip(found[2]["data"], plain[1]["data"], np.reshape(plain[0]["data"], (2, -1)), strict=True):
        reasons = json.loads(text)
        assert {one["column"] for one in reasons["contributions"]} == COLUMNS
        assert reasons["label"] == label
        assert reasons["probability"] == pytest.approx(max(shares), abs=1e-6)
        told = sum(one["contribution"] for one in reasons["contributions"])
        assert told == pytest.approx(reasons["probability"] - reasons["reference_probability"], abs=1e-5)
    live.target.rotate_log(MODEL)
    assert live.target.log_counts(MODEL).written == 4
