"""GraphQL requests, classified: by any disguise a mutation stays what it is."""

from __future__ import annotations

import json

import pytest
from graphql import parse
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.errors import FalajError, ForbiddenError, RequestError
from platform_assets.identity.actions import MUTATIONS, SUBSCRIPTIONS, Action
from platform_assets.identity.operations import read_operation

TERMINATE = 'terminateRun(runId: "1") { __typename }'


def actions(query: str, **more: object) -> frozenset[Action]:
    return read_operation({"query": query, **more})[0].actions


def test_every_mutation_and_subscription_of_the_installed_schema_is_classified() -> None:
    from dagster_graphql.schema import create_schema

    schema = create_schema().graphql_schema
    assert set(MUTATIONS) == set(schema.mutation_type.fields)
    assert set(SUBSCRIPTIONS) == set(schema.subscription_type.fields)


@pytest.mark.parametrize(
    "query",
    [
        f"mutation {{ {TERMINATE} }}",
        f"mutation {{ harmless: {TERMINATE} }}",
        f"mutation {{ setNuxSeen reloadRepositoryLocation: {TERMINATE} }}",
        f"mutation {{ ...A }} fragment A on Mutation {{ {TERMINATE} }}",
        f"mutation {{ ...A }} fragment A on Mutation {{ ...B }} fragment B on Mutation {{ ... on Mutation {{ x: {TERMINATE} }} }}",
        f"mutation {{ ... {{ {TERMINATE} }} }}",
        f"mutation M($no: Boolean!) {{ setNuxSeen ... @include(if: $no) {{ {TERMINATE} }} }}",
        f"mutation {{ terminateRun @skip(if: true) {{ __typename }} {TERMINATE} }}",
        f"# query {{ version }}\nmutation query {{ {TERMINATE} }}",
        f"\ufeffmutation,,, {{ {TERMINATE} }}",
        f"mutation {{ ...A ...A }} fragment A on Mutation {{ {TERMINATE} ...B }} fragment B on Mutation {{ ...A }}",
    ],
)
def test_a_mutation_in_disguise_is_what_it_does(query: str) -> None:
    assert Action.TERMINATE in actions(query)


def test_a_dry_run_counts_as_execution() -> None:
    for field in ("sensorDryRun", "scheduleDryRun"):
        assert actions(f"mutation {{ {field}(selectorData: {{}}) {{ __typename }} }}") == {Action.LAUNCH}


def test_the_named_operation_is_judged_and_it_alone_is_sent_on() -> None:
    both = f"query A {{ version ...F }} mutation B {{ {TERMINATE} }} fragment F on Query {{ shouldShowNux }} fragment G on Mutation {{ setNuxSeen }}"
    read, _ = read_operation({"query": both, "operationName": "A"})
    assert read.actions == {Action.READ}
    assert "terminateRun" not in read.document
    assert "setNuxSeen" not in read.document
    assert len(parse(read.document).definitions) == 2
    assert actions(both, operation_name="B") == {Action.TERMINATE}
    with pytest.raises(RequestError, match="differ"):
        actions(both, operationName="A", operation_name="B")
    with pytest.raises(RequestError, match="must name one operation"):
        actions(both)
    with pytest.raises(RequestError, match="must name one operation"):
        actions(both, operationName="C")


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ([{"query": "{ version }"}], "arrays"),
        ({"query": ["{ version }"]}, "must be the text"),
        ({"query": ""}, "must be the text"),
        ({}, "must be the text"),
        ({"query": "{ version }", "variables": "{}"}, "JSON object"),
        ({"query": "{ version }", "operationName": {"a": 1}}, "short text|must name"),
        ({"query": "{ version }", "extensions": {}, "id": 1}, "unknown members"),
        ({"query": "{ version"}, "no GraphQL document"),
        ({"query": "{" * 5000}, "nested deeper"),
        ({"query": "{ " + "a " * 20_000 + "}"}, "no GraphQL document"),
        ({"query": "type Query { a: Int }"}, "operations and fragments"),
        ({"query": "{ version } { version }"}, "operations and fragments"),
        ({"query": "query A { version } query A { version }"}, "operations and fragments"),
        ({"query": "mutation { ...A }"}, "does not define"),
        ({"query": "mutation { " + " ".join(f"a{i}: {TERMINATE}" for i in range(26)) + " }"}, "may hold 25"),
    ],
)
def test_what_is_no_single_request_is_refused(payload: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_operation(payload)


@pytest.mark.parametrize("query", ["mutation { dropEverything }", "mutation { version: dropEverything }", "subscription { allEvents }"])
def test_an_unknown_mutation_is_refused(query: str) -> None:
    with pytest.raises(ForbiddenError, match="not one that policies speak of"):
        read_operation({"query": query})


wrapped = st.recursive(
    st.just(TERMINATE),
    lambda inner: st.one_of(
        inner.map(lambda text: f"... on Mutation {{ {text} }}"),
        inner.map(lambda text: f"... {{ setNuxSeen {text} }}"),
        inner.map(lambda text: f"... @include(if: false) {{ {text} }}"),
    ),
    max_leaves=12,
)


@given(wrapped, st.booleans())
def test_no_nesting_hides_a_mutation(text: str, in_fragment: bool) -> None:
    query = f"mutation {{ ...F }} fragment F on Mutation {{ {text} }}" if in_fragment else f"mutation {{ {text} }}"
    first, _ = read_operation({"query": query})
    assert Action.TERMINATE in first.actions
    again, _ = read_operation({"query": first.document})
    assert (again.actions, again.fields) == (first.actions, first.fields)  # what is sent on is judged alike


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["query", "variables", "operationName", "x"]), x),
    )
)
def test_nothing_but_our_own_errors_leaves_the_parser(payload: object) -> None:
    try:
        operation, variables = read_operation(payload)
    except FalajError:
        return
    assert operation.actions
    json.dumps(variables)
