"""The regulator's report is made of an account alone: what it shows has a source, what has none is said to have none."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_assets.specs.account import Account, ReleaseAccount
from platform_assets.specs.guarantee import Guarantee
from platform_assets.stages.governance.audit_report import build_report, draw_page
from platform_assets.stages.governance.clauses import CLAUSES
from platform_assets.stages.governance.findings import FINDINGS, NO_EVIDENCE, find_evidence, hold_against_clauses

LAWS = ("UAE PDPL", "GDPR", "EU AI Act", "ISO/IEC 27001", "NIST SP 800-207", "NIST AI RMF", "DIFC", "ADGM", "KSA PDPL")


def entry(seq, action, **detail):
    at = f"2026-11-{seq:02d}T10:00:00+00:00"
    return {"seq": seq, "at": at, "action": action, "subject": "model/m", "actor": "someone", "detail": detail}


def account(**changes):
    whole = {
        "model": "m", "since": "2026-11-01T00:00:00+00:00", "until": "2026-11-30T00:00:00+00:00", "log_length": 0,
        "declared": {"purpose": "", "owner": "team:x", "tenant": "t", "target": {"column": "y", "kind": "binary"}, "governance": {"residency": "AE", "retention": None}},
        "dataset": {"columns": {}},
    }  # fmt: skip
    return Account(**{**whole, **changes})


def test_a_private_training_is_evidence_of_protection_and_others_are_not():
    privacy = Guarantee(2.97, 1e-6, 3.0, 1.0, 1.1, 0.0125, 624, 624, "Rényi", 9.5)
    dataset = {"table": "d", "version": 1}
    private = ReleaseAccount("aaa", "a" * 64, lineage={"privacy": asdict(privacy), "dataset": dataset})
    found = find_evidence(account(releases=[private, ReleaseAccount("bbb", "b" * 64, lineage={"privacy": None, "dataset": dataset})]))
    assert found["protection"] == f"aaa was trained with differential privacy: {privacy.sentence}"
    assert "protection" not in find_evidence(account(releases=[ReleaseAccount("bbb", "b" * 64, lineage={"dataset": dataset})]))


def test_every_finding_that_a_clause_names_exists_and_every_law_is_there():
    assert {name for clause in CLAUSES for name in clause.shown_by} <= set(FINDINGS)
    for law in LAWS:
        assert any(clause.law.startswith(law) for clause in CLAUSES), law
    named = {(clause.law.split()[0], clause.clause) for clause in CLAUSES}
    assert {("GDPR", f"Art. {number}") for number in (5, 17, 22, 25, 30, 32, 35)} <= named


def test_an_empty_account_has_no_evidence_for_anything_and_says_so():
    report = build_report(account())
    assert report["evidence"] == {}
    assert {tuple(row["evidence"]) for row in report["clauses"]} == {(NO_EVIDENCE,)}
    page = draw_page(report)
    assert page.count(">no evidence<") == len(CLAUSES)
    assert "no certificate" in page
    assert "Nothing was live." in page


@given(st.sets(st.sampled_from(sorted(FINDINGS))))
def test_a_clause_shows_exactly_what_was_found_of_what_it_names(found):
    for row, clause in zip(hold_against_clauses({name: f"saw {name}" for name in found}), CLAUSES, strict=True):
        shown = [name for name in clause.shown_by if name in found]
        assert row["evidence"] == ([f"saw {name}" for name in shown] or [NO_EVIDENCE])
        assert set(row["not_shown"]) == set(clause.shown_by) - found


@pytest.mark.parametrize(
    ("action", "detail", "finding"),
    [
        ("erasure", {"models": []}, "erasure"),
        ("subject_exported", {}, "access"),
        ("retention", {"rows": 3}, "retention"),
        ("release_refused", {"reason": "altered"}, "incidents"),
        ("approve", {}, "approvals"),
        ("rollback", {"live": "a" * 64}, "oversight"),
    ],
)
def test_what_was_done_is_evidence_and_names_its_entry(action, detail, finding):
    assert finding not in find_evidence(account())
    assert "7" in find_evidence(account(entries=[entry(7, action, **detail)]))[finding]


def test_each_version_ends_where_the_next_decision_changed_it_and_names_what_asked_for_it():
    old, new = "a" * 64, "b" * 64
    made = account(
        before=entry(1, "rollout", live=old, why="first"),
        entries=[
            entry(3, "retraining", trigger="drift", why="window 8 moved"),
            entry(4, "rollout", live=new, why="took over"),
            entry(5, "rollout", live=new, why="kept"),
            entry(6, "rollback", live=old, before=new),
        ],
    )
    rows = build_report(made)["versions"]
    assert [(row["live"][0], row["until"][:10]) for row in rows] == [
        ("a", "2026-11-04"), ("b", ""), ("b", "2026-11-06"), ("a", "")
    ]  # fmt: skip
    assert rows[1]["trigger"] == "drift: window 8 moved (log: 3)"
    assert rows[2]["trigger"] == ""  # it answered the rollout before


def test_a_column_that_was_declared_and_not_protected_is_shown_as_such():
    dataset = {"columns": {"name": {"personal": {"method": "drop"}}, "n": {"personal": None}}}
    found = build_report(account(dataset=dataset))["protection"]["columns"]
    assert found == [{"column": "name", "declared": "drop", "applied": NO_EVIDENCE}]
    noted = account(dataset=dataset, notes={"protected": {"protected_columns": {"name": "drop"}}})
    assert build_report(noted)["protection"]["columns"][0]["applied"] == "drop"


def test_a_release_that_cannot_be_opened_is_no_evidence_of_integrity():
    refused = ReleaseAccount("aaa", "a" * 64, refused="altered")
    assert "integrity" not in find_evidence(account(releases=[refused]))
    assert find_evidence(account(releases=[refused, ReleaseAccount("b", "b")]))["integrity"].startswith(
        "signature and every byte of 1 of 2"
    )


def test_values_are_escaped_on_the_page():
    page = draw_page(build_report(account(entries=[entry(1, "denied", reason="<script>alert(1)</script>")])))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_every_place_is_shown_with_its_ground_and_what_was_refused_is_named():
    transfer = {"to": "DE", "basis": "standard clauses, contract 17", "since": "2026-01-01", "until": "2026-12-31"}
    rows = [
        {"parts": ["tables", "releases"], "where": "FALAJ_HOME", "jurisdiction": "AE", "declared": "x", "reached_by": "dataset/d/ingested", "ground": "residency"},
        {"parts": ["events"], "where": "redis at q", "jurisdiction": "DE", "declared": "x", "reached_by": "dataset/d/ingested", "ground": transfer["basis"]},
        {"parts": ["notices"], "where": "a hook", "jurisdiction": "US", "declared": "x", "reached_by": "dataset/d/ingested", "ground": "none"},
    ]  # fmt: skip
    refused = entry(7, "placement_refused", reason="dataset/d/ingested -> notices would be in US")
    way = [{"asset": "dataset/d/ingested", "profile": "cpu", "jurisdiction": "AE"}]
    report = build_report(account(way=way, places=rows, dataset={"columns": {}, "transfers": [transfer]}, entries=[refused]))
    assert report["evidence"]["residency"] == (
        "1 steps from source to report stand in AE, and what they leave in 3 places in AE, DE, US; "
        "transfer to DE on standard clauses, contract 17 from 2026-01-01 until 2026-12-31; 1 placements refused (log: 7)"
    )
    page = draw_page(report)
    assert "tables, releases" in page
    assert '<td class="none">none</td>' in page
    assert page.count(transfer["basis"]) >= 2
    assert [one["seq"] for one in report["incidents"]] == [7]
