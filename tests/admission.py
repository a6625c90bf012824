"""ValidatingAdmissionPolicies judged as an API server does, their CEL evaluated by cel-python: Kubernetes' own functions are not in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import celpy
from celpy.adapter import json_to_cel

Object = dict[str, Any]


@cache
def _program(expression: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression))


def _is_true(expression: str, given: Mapping[str, Any]) -> bool:
    return bool(_program(expression).evaluate(dict(given)))


def refusal(policy: Object, made: Object, *, user: str, namespace: Mapping[str, str] | None = None) -> str | None:
    """Return the sentence by which a policy refuses an object that `user` creates in a namespace of these labels; None where it lets it pass.

    `made` has no keys without a value, as what goes over the wire.
    """
    spec = policy["spec"]
    wanted = spec["matchConstraints"].get("namespaceSelector", {}).get("matchLabels", {})
    (rule,) = spec["matchConstraints"]["resourceRules"]
    group, _, version = made["apiVersion"].rpartition("/")
    if [rule["apiGroups"], rule["apiVersions"], rule["resources"]] != [[group], [version], [f"{made['kind'].lower()}s"]]:
        return None
    if not wanted.items() <= (namespace or {}).items():
        return None
    given = {"object": json_to_cel(made), "request": json_to_cel({"userInfo": {"username": user}})}
    if not all(_is_true(one["expression"], given) for one in spec.get("matchConditions", ())):
        return None
    variables: dict[str, Any] = {}
    for one in spec.get("variables", ()):
        known = celpy.celtypes.MapType({celpy.celtypes.StringType(name): value for name, value in variables.items()})
        variables[one["name"]] = _program(one["expression"]).evaluate({**given, "variables": known})
    given["variables"] = celpy.celtypes.MapType({celpy.celtypes.StringType(name): value for name, value in variables.items()})
    return next((str(one["message"]) for one in spec["validations"] if not _is_true(one["expression"], given)), None)
