from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.release.approval import APPROVED, RELEASED, requesters, second_person

PEOPLE = st.sampled_from(["amal (shell)", "badr (https://idp)", "noura (https://idp)"])
ENTRIES = st.lists(
    st.builds(
        lambda action, who, digest: {
            "action": action,
            "actor": who if action == APPROVED else "run/1",
            "detail": {"digest": digest, "requester": who},
        },
        st.sampled_from([RELEASED, APPROVED, "gate"]),
        PEOPLE,
        st.sampled_from(["d1", "d2"]),
    ),
    max_size=8,
)


@given(ENTRIES)
def test_in_any_order_of_events_nobody_approves_what_they_asked_for(entries):
    found = second_person(entries, "d1")
    approved = {entry["actor"] for entry in entries if entry["action"] == APPROVED and entry["detail"]["digest"] == "d1"}
    assert (found is None) == (approved <= requesters(entries, "d1"))
    assert found is None or (found in approved and found not in requesters(entries, "d1"))


def test_the_word_on_one_release_is_none_on_another():
    entries = [
        {"action": RELEASED, "actor": "run/1", "detail": {"digest": "d1", "requester": "amal"}},
        {"action": RELEASED, "actor": "run/2", "detail": {"digest": "d2", "requester": "amal"}},
        {"action": APPROVED, "actor": "badr", "detail": {"digest": "d1"}},
    ]
    assert (second_person(entries, "d1"), second_person(entries, "d2")) == ("badr", None)
