"""One light for a model in production, and one sentence: what the server's status page shows of the drift report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_assets.specs.feed import FeedReport
    from platform_assets.specs.records import DriftReport


def show_light(report: DriftReport, feed: FeedReport) -> dict[str, str]:
    """Return `{"light": "green|amber|red", "sentence", "at"}` of the newest window.

    red: its feed is broken, or the newest window whose labels are in broke the release's promise; amber: something moved that the model
    leans on, or it is served worse than released; green: none of these.
    """
    newest = report.windows[-1] if report.windows else None
    settled = [window for window in report.performance if window.settled]
    if newest is None:
        return {"light": "green", "sentence": "too few predictions to judge yet", "at": ""}
    if feed.now is not None:
        return {"light": "red", "sentence": feed.now.sentence, "at": newest.last_event}
    if settled and settled[-1].dropped:
        return {"light": "red", "sentence": settled[-1].sentence, "at": settled[-1].last_event}
    if not newest.drifted and report.service and report.service[-1].regressed:
        return {"light": "amber", "sentence": report.service[-1].sentence, "at": report.service[-1].at}
    return {"light": "amber" if newest.drifted else "green", "sentence": newest.evidence, "at": newest.last_event}
