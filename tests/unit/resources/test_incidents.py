"""What the inference server noted reaches the audit log, each once."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kill_points import killed_at

from platform_assets.stages.serving import incidents as room
from platform_assets.stages.serving.incidents import Denials, Incidents
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.incidents import take_over
from resources.testing.state import MemoryAuditLog


def test_incidents_are_taken_over_in_order_with_their_detail_and_their_time(tmp_path):
    incidents, audit = Incidents(tmp_path), MemoryAuditLog()
    incidents.note("release_opened", subject="model/m", digest="a")
    incidents.note("release_refused", subject="model/m", digest="b", reason="altered")
    assert take_over(tmp_path, audit) == 2
    first, second = audit.entries()
    assert (first["action"], first["actor"], first["detail"]["digest"]) == ("release_opened", "inference server", "a")
    assert second["detail"]["reason"] == "altered"
    assert first["detail"]["at"] <= second["detail"]["at"]
    assert take_over(tmp_path, audit) == 0
    assert len(audit.entries()) == 2


def test_a_server_that_never_ran_left_nothing(tmp_path):
    assert take_over(tmp_path / "none", MemoryAuditLog()) == 0


def test_a_disk_that_takes_nothing_does_not_stop_the_server(tmp_path):
    (tmp_path / "incidents").write_text("a file where the folder would be")
    Incidents(tmp_path).note("release_refused", subject="model/m")


def test_a_take_over_killed_at_any_moment_loses_and_doubles_nothing(tmp_path):
    log = SqliteAuditLog(tmp_path / "state.sqlite", signer=HeadSigner(tmp_path / "keys"))
    log.append("begin", subject="m", actor="x", detail={})
    (tmp_path / "serving").mkdir()
    incidents, moment = Incidents(tmp_path / "serving"), 1
    incidents.note("denied", subject="server", moment=moment)
    while killed_at(moment, lambda: take_over(tmp_path / "serving", log)):
        moment += 1
        incidents.note("denied", subject="server", moment=moment)
    assert [entry["detail"]["moment"] for entry in log.entries(subject="server")] == list(range(1, moment + 1))
    assert moment > 2
    assert log.verify() == moment + 1


@given(st.lists(st.tuples(st.sampled_from(["no token", "invalid token"]), st.floats(0, 40)), max_size=30))
def test_however_many_are_turned_away_a_minute_has_one_entry_and_all_are_counted(denied):
    told, now = [], [1000.0]

    class Ear:
        def note(self, action, *, subject, counts):
            told.append((now[0], counts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room.time, "monotonic", lambda: now[0])
        denials = Denials(Ear())
        for reason, later in denied:
            now[0] += later
            denials.note(reason)
        for (before, _), (after, _) in pairwise(told):
            assert after - before >= 60
        denials.tell()
    assert sum(sum(counts.values()) for _, counts in told) == len(denied)
