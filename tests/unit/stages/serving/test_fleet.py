"""Facts of several workers become those of one server."""

from __future__ import annotations

from platform_assets.stages.serving.fleet import merge_facts

ONE = {"ready": True, "replies": {"200": 1}, "uptime_seconds": 1.0, "log_fault": "", "log_lost_rows": 2}


def test_counts_are_summed_and_a_fault_of_one_worker_is_told():
    other = {**ONE, "ready": False, "replies": {"200": 2, "503": 1}, "uptime_seconds": 9.0, "log_fault": "the disk is full"}
    assert merge_facts([ONE, other]) == {
        "ready": False, "replies": {"200": 3, "503": 1}, "uptime_seconds": 9.0, "log_fault": "the disk is full", "log_lost_rows": 4,
    }  # fmt: skip
    assert merge_facts([ONE])["log_fault"] == ""
