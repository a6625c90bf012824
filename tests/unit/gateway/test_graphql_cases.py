"""Every query and mutation that Dagster's schema allows, made by schemathesis and asked of the gateway as anybody: nothing breaks or tells.

FALAJ_CASES says how many requests; without it this is left out, since making sixty costs half a minute of CPU. `docs/reference/security.md` has the
figures of a longer run.
"""

from __future__ import annotations

import os
from collections import Counter

import psutil
import pytest
import requests
import schemathesis
from dagster_graphql.schema import create_schema
from gateway_site import Behind
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("FALAJ_CASES", "0"))
ALLOWED = {200, 400, 401, 403, 422, 429}


def ways() -> list[st.SearchStrategy]:
    """Every field of the schema, with arguments as they may be."""
    schema = schemathesis.graphql.from_dict(create_schema().introspect())
    return [found.ok().as_strategy() for found in schema.get_all_operations()]


@pytest.mark.skipif(CASES == 0, reason="set FALAJ_CASES to how many requests shall be made: sixty cost half a minute of CPU")
def test_what_the_schema_allows_breaks_nothing_and_tells_nothing(behind: Behind) -> None:
    behind.forgive()
    people = {role: behind.token(role, subject=role) for role in ("viewer", "operator", "approver", "admin")}
    secrets = [(behind.keys / "tokens.key.pem").read_text().splitlines()[1], "Traceback", 'File \\"', 'File "', *people.values()]
    memory, statuses, done = [], Counter(), Counter()
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=CASES, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=st.one_of(ways()), who=st.sampled_from([*people, "stranger"]))
    def ask(case, who):
        headers = {"authorization": f"Bearer {people[who]}"} if who in people else {}
        answer = session.post(f"{behind.url}/graphql", json={"query": case.body}, headers=headers, timeout=30)
        statuses[answer.status_code] += 1
        done[who, answer.status_code] += 1
        assert answer.status_code in ALLOWED, (answer.status_code, answer.text, case.body)
        assert not [secret for secret in secrets if secret in answer.text], case.body
        if who == "stranger":
            assert answer.status_code in (401, 429), case.body
            behind.forgive()
        if case.body.lstrip().startswith("mutation") and who == "viewer" and "setNuxSeen" not in case.body:  # its page's own memory
            assert answer.status_code in (400, 403), case.body
        if statuses.total() % 20 == 0:
            memory.append(psutil.Process().memory_info().rss)

    ask()
    print(dict(statuses), dict(done), [rss >> 20 for rss in memory[:: max(1, len(memory) // 10)]])
    assert statuses.total() >= CASES * 0.9
    assert statuses[200] > CASES * 0.1
    assert statuses[403] > CASES * 0.1
    assert memory[-1] - memory[0] < 64 << 20  # bytes: schemathesis and Dagster's caches are in this process, too
