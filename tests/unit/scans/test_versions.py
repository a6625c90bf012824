"""Which versions a record speaks of, and how bad it says that it is."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_assets.errors import ScanError
from platform_assets.scans.inventory import Package
from platform_assets.scans.severity import cvss3_base_score, rate, read_severity
from platform_assets.scans.versions import affects, compare_debian


def within(version: str, *events: dict[str, str], ecosystem: str = "PyPI") -> bool:
    return affects({"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}, Package(ecosystem, "holey", version))


@pytest.mark.parametrize(
    ("version", "held"),
    [("0.9", False), ("1.0", True), ("1.9.9", True), ("2.0rc1", True), ("2.0", False), ("3.0", True), ("3.1", True), ("3.1.1", False)],
)
def test_a_range_holds_from_its_start_to_before_its_fix_or_through_the_last_that_is_affected(version, held):
    assert within(version, {"introduced": "3.0"}, {"fixed": "2.0"}, {"introduced": "1.0"}, {"last_affected": "3.1"}) is held


def test_a_range_from_nought_holds_for_everything_before_its_fix_and_without_one_for_all():
    assert within("0.0.dev1", {"introduced": "0"}, {"fixed": "1"})
    assert within("9999", {"introduced": "0"})
    assert not within("1", {"introduced": "0"}, {"fixed": "1"})


def test_a_version_that_is_listed_is_affected_and_ranges_of_commits_say_nothing():
    git = {"type": "GIT", "events": [{"introduced": "0"}]}
    assert affects({"versions": ["1.4"], "ranges": [git]}, Package("PyPI", "holey", "1.4"))
    assert not affects({"versions": ["1.4"], "ranges": [git]}, Package("PyPI", "holey", "1.5"))


def test_a_version_that_is_none_is_not_taken_for_a_good_one():
    with pytest.raises(ScanError, match="'one' is no version"):
        within("one", {"introduced": "0"})


def test_debians_ranges_follow_debians_order():
    assert within("1:1.2~rc1-1", {"introduced": "0"}, {"fixed": "1:1.2-1"}, ecosystem="Debian:12")
    assert not within("1:1.2-1+deb12u1", {"introduced": "0"}, {"fixed": "1:1.2-1"}, ecosystem="Debian:12")


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        ("1.0", "1.0", 0), ("1.0", "1.00", 0), ("0:1.0", "1.0", 0), ("1.0-0", "1.0", 0), ("2.0", "1:1.0", -1), ("1.0~rc1", "1.0", -1),
        ("1.0-1", "1.0-1+b1", -1), ("1.0a", "1.0+", -1), ("1.9", "1.10", -1), ("1.0~~", "1.0~", -1), ("1-2-3", "1-2-4", -1), ("1.2.a", "1.2.1", 1),
    ],
)  # fmt: skip
def test_debians_order_is_dpkgs(left, right, order):
    assert compare_debian(left, right) == order
    assert compare_debian(right, left) == -order


versions = st.from_regex(r"([0-9]:)?[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,3})?", fullmatch=True)


@settings(max_examples=40)
@given(versions, versions, versions)
def test_debians_order_is_an_order(one, two, three):
    assert compare_debian(one, two) == -compare_debian(two, one)
    if compare_debian(one, two) <= 0 and compare_debian(two, three) <= 0:
        assert compare_debian(one, three) <= 0


def test_dpkg_itself_says_the_same():
    if shutil.which("dpkg") is None:
        pytest.skip("no dpkg on this machine")
    names = ["1.0", "1.0~rc1", "1.0-1", "1.0-1+b1", "1:0.5", "1.0a", "1.0+dfsg", "1.0.1", "1.0-1~bpo12+1"]
    pairs = [(one, two) for one in names for two in names]
    script = "\n".join(f"dpkg --compare-versions '{one}' lt '{two}' && echo y || echo n" for one, two in pairs)
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert [compare_debian(*pair) < 0 for pair in pairs] == [word == "y" for word in said]


@pytest.mark.parametrize(  # the examples of FIRST (https://www.first.org/cvss/v3.1/examples)
    ("vector", "score"),
    [
        ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4), ("CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1), ("CVSS:3.1/AV:L/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H", 7.8),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5), ("CVSS:3.0/AV:P/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:N", 4.6),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0), ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
    ],
)  # fmt: skip
def test_a_base_score_is_the_specifications(vector, score):
    assert cvss3_base_score(vector) == score


@pytest.mark.parametrize(
    "vector", ["", "CVSS:3.1/AV:N", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", "CVSS:3.1/AV:X/AC:L", "7.5"]
)
def test_what_is_no_vector_of_version_3_has_no_score(vector):
    assert cvss3_base_score(vector) is None


def test_a_score_is_a_word_and_a_records_own_word_goes_before_it():
    assert [rate(score) for score in (0.0, 0.1, 3.9, 4.0, 6.9, 7.0, 8.9, 9.0)] == [
        "none",
        "low",
        "low",
        "medium",
        "medium",
        "high",
        "high",
        "critical",
    ]
    worst = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H"}]
    assert read_severity({"severity": worst, "database_specific": {"severity": "MODERATE"}}) == "medium"
    assert read_severity({"severity": worst}) == "critical"
    assert read_severity({"affected": [{"ecosystem_specific": {"urgency": "unimportant"}}]}) == "none"
    assert read_severity({"affected": [{"ecosystem_specific": {"urgency": "not yet assigned"}}], "database_specific": 7}) == "unknown"
