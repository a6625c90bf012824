"""A GraphQL request, parsed: which operation runs, what it does, and the document that is sent on. It is what was judged that is sent.

Fields count wherever they stand: under aliases, in fragments, in fragments within fragments, also where a directive would skip them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    print_ast,
)
from graphql.utilities import separate_operations

from platform_assets.errors import ForbiddenError, RequestError
from platform_assets.identity.actions import MUTATIONS, SUBSCRIPTIONS, Action

_MOST_TOKENS = 15_000  # the web UI's largest document has a fifth of it
_MOST_MUTATIONS = 25
_MOST_DEPTH = 64  # of braces; keeps the recursive parser far from Python's limit
_MOST_NAME = 256
_REMEMBERED, _REMEMBERED_CHARACTERS = 256, 32_768
_KEYS = {"query", "variables", "operationName", "operation_name", "extensions"}


@dataclass(frozen=True)
class Operation:
    """One operation: its type, the root fields that it names, what they do, and its document with the fragments that it uses."""

    kind: str
    name: str | None
    fields: tuple[str, ...]
    actions: frozenset[Action]
    document: str


def read_operation(payload: Any) -> tuple[Operation, dict[str, Any]]:
    """Return operation and variables of a request's JSON; RequestError where it is no single well-formed request.

    HTTP says `operationName`, Dagster's websocket reads `operation_name`, its own web UI sends `operationName` there: either is taken,
    two that differ are refused. ForbiddenError where a mutation or subscription is unknown.
    """
    if not isinstance(payload, Mapping):
        raise RequestError("a GraphQL request must be one JSON object; arrays of requests are not taken")
    if unknown := set(payload) - _KEYS:
        raise RequestError(f"the GraphQL request has unknown members: {', '.join(sorted(map(repr, unknown)))[:200]}")
    query, variables = payload.get("query"), payload.get("variables")
    names = [value for key in ("operationName", "operation_name") if (value := payload.get(key)) not in (None, "")]
    if not isinstance(query, str) or not query.strip():
        raise RequestError("query must be the text of a GraphQL document")
    if variables is not None and not isinstance(variables, Mapping):
        raise RequestError("variables must be a JSON object")
    if any(not isinstance(name, str) or len(name) > _MOST_NAME for name in names):
        raise RequestError("operationName must be a short text")
    if len(set(names)) > 1:
        raise RequestError("operationName and operation_name differ; send one")
    name = next(iter(names), None)
    find = _remembered if len(query) <= _REMEMBERED_CHARACTERS else _classify
    return find(query, name), dict(variables or {})


def _classify(query: str, name: str | None) -> Operation:
    _check_depth(query)
    try:
        document = parse(query, no_location=True, max_tokens=_MOST_TOKENS)
    except (GraphQLError, RecursionError) as error:
        raise RequestError(f"query is no GraphQL document: {getattr(error, 'message', 'nested too deep')[:200]}") from None
    operation = _pick(document, name)
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    fields = tuple(_root_fields(operation.selection_set, fragments, set()))
    label = operation.name.value if operation.name else ""
    kept = separate_operations(document)[label]  # this operation and the fragments that it uses
    return Operation(operation.operation.value, label or None, fields, _actions(operation.operation, fields), print_ast(kept))


_remembered = lru_cache(maxsize=_REMEMBERED)(_classify)  # the web UI sends the same texts again and again


def _check_depth(query: str) -> None:
    depth = 0
    for character in query:
        if character in "{[(":
            depth += 1
            if depth > _MOST_DEPTH:
                raise RequestError(f"query is nested deeper than {_MOST_DEPTH} brackets")
        elif character in "}])":
            depth -= 1


def _pick(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    others = [node for node in document.definitions if not isinstance(node, OperationDefinitionNode | FragmentDefinitionNode)]
    labels = [node.name.value if node.name else "" for node in operations]
    if others or not operations or len(set(labels)) < len(labels) or ("" in labels and len(labels) > 1):
        raise RequestError("query must hold operations and fragments alone, and each operation a name where there are several")
    wanted = [node for node, label in zip(operations, labels, strict=True) if name is None or label == name]
    if len(wanted) != 1:
        raise RequestError(f"operationName {name!r} must name one operation of the query; it has: {', '.join(labels)[:200]}")
    return wanted[0]


def _root_fields(selected: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode], seen: set[str]) -> Iterator[str]:
    for node in selected.selections:
        if isinstance(node, FieldNode):
            yield node.name.value
        elif isinstance(node, FragmentSpreadNode):
            if node.name.value in seen:  # a second visit names the same fields; a circle ends here and upstream refuses it
                continue
            seen.add(node.name.value)
            if node.name.value not in fragments:
                raise RequestError(f"query spreads the fragment {node.name.value!r}, which it does not define")
            yield from _root_fields(fragments[node.name.value].selection_set, fragments, seen)
        else:
            yield from _root_fields(node.selection_set, fragments, seen)  # type: ignore[attr-defined]


def _actions(kind: OperationType, fields: tuple[str, ...]) -> frozenset[Action]:
    if kind is OperationType.QUERY:
        return frozenset({Action.READ})
    known = MUTATIONS if kind is OperationType.MUTATION else SUBSCRIPTIONS
    if len(fields) > _MOST_MUTATIONS:
        raise RequestError(f"one request may hold {_MOST_MUTATIONS} fields of a {kind.value}; this holds {len(fields)}")
    if unknown := sorted({field for field in fields if field not in known and field != "__typename"}):
        raise ForbiddenError(f"the {kind.value} {', '.join(unknown)[:200]} is not one that policies speak of; it is refused")
    return frozenset(known[field] for field in fields if field in known) or frozenset({Action.READ})
