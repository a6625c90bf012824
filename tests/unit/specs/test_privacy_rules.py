"""What a declaration with differential privacy may not hold beside it."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from platform_assets.specs.model import ModelSpec
from platform_assets.specs.privacy_rules import check_privacy

BLIND = {"methods": ["fuse", "pack", "int8", "dynamic"]}


def model(compression=BLIND, **training) -> ModelSpec:
    declared = {"architecture": "tabular_mlp", "dropout": 0, "privacy": {"epsilon": 3, "delta": 1e-6}, **training}
    return ModelSpec.model_validate({
        "name": "m", "owner": "team:a", "purpose": "Predict cancellations", "dataset": "d", "features": {"views": ["v"]},
        "target": {"column": "cancelled", "kind": "binary"}, "training": declared, "compression": compression,
    })  # fmt: skip


def test_what_is_counted_whole_is_right_and_without_privacy_all_is():
    assert list(check_privacy(model())) == []
    assert list(check_privacy(model(compression={}, privacy=None, dropout=0.3))) == []


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"architecture": "custom"}, "training.architecture", "may mix rows"), ({"dropout": 0.1}, "training.dropout", "is 0.1; .* write dropout: 0"),
        ({"precision": "bf16-mixed"}, "training.precision", "32-true"), ({"compile": True}, "training.compile", "leave it out"),
        ({"gradient_checkpointing": True}, "training.gradient_checkpointing", "leave it out"), ({"strategy": "fsdp2"}, "training.strategy", "one process"),
        ({"search": {"width": [16, 32]}}, "training.search", "every trial would spend epsilon"),
        ({"compression": {}}, "compression.methods", r"'?distil.* look at rows again.*right: methods: \[fuse, pack, int8, dynamic\]"),
    ],
)  # fmt: skip
def test_what_would_spend_uncounted_or_cannot_be_done_row_by_row_is_one_fault(changes, field, message):
    (fault,) = check_privacy(model(**changes))
    assert fault.field == field
    assert re.search(message, fault.message), fault.message


@pytest.mark.parametrize(
    "privacy", [{"epsilon": 0, "delta": 1e-6}, {"epsilon": 3}, {"epsilon": 3, "delta": 0}, {"epsilon": 3, "delta": 0.5}, {"epsilon": 3, "delta": 1e-6, "noise": 1},
                {"epsilon": 3, "delta": 1e-6, "max_grad_norm": 0}]
)  # fmt: skip
def test_a_privacy_that_guarantees_nothing_is_refused(privacy):
    with pytest.raises(ValidationError):
        model(privacy=privacy)
