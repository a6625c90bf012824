import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from platform_assets.specs.estimate import WindowEstimate
from platform_assets.specs.feed import FeedFault, FeedReport
from platform_assets.specs.records import ColumnDrift, DriftReport, WindowPerformance, WindowReport
from platform_assets.specs.service import ServiceCounts, ServiceFinding, ServiceReport
from platform_assets.stages.monitoring.exposition import HELP, render_drift
from platform_assets.stages.monitoring.light import show_light
from platform_assets.stages.monitoring.page import Done, began, draw_page

MOVED = ColumnDrift("lead <time>", "ks", 0.4, 1e-9, 0.1, drifted=True, importance=0.3, was="70", now="140")
STILL = ColumnDrift("adr", "ks", 0.05, 0.5, 0.1, drifted=False, importance=0.2)


def window(n, *, drifted):
    column = MOVED if drifted else replace(MOVED, effect=0.05, drifted=False)
    return WindowReport(
        n, n * 10, n * 10 + 9, f"2020-01-0{n + 1}", f"2020-01-0{n + 1}", ("v",), (column, STILL), drifted, f"window {n} told"
    )


REPORT = DriftReport(
    (window(0, drifted=True), window(1, drifted=False), window(2, drifted=True), window(3, drifted=True)),
    tuple(
        WindowPerformance(
            n, f"2020-01-0{n + 1}", 10, 10, "auroc", 0.8 - n / 50, 0.8, settled=True, dropped=False, sentence=f"auroc of window {n}"
        )
        for n in range(2)
    ),
    tuple(
        WindowEstimate(n, f"2020-01-0{n + 1}", "auroc", 0.75, 0.7, 0.8, 0.8, dropped=False, sentence=f"window {n} <estimated>")
        for n in range(4)
    ),
    (
        ServiceReport(
            "v", "2020-01-04", "rollout", ServiceCounts(600), ServiceCounts(700), ServiceCounts(700),
            (ServiceFinding("latency_p99", 4.0, 3.0, 1e-9, regressed=True, severity="warning", was="2 ms", now="8 ms"),
             ServiceFinding("errors", 0.0, 0.01, 1.0, regressed=False, severity="", was="0.00%", now="0.00%")),
        ),
    ),
)  # fmt: skip
FEED = FeedReport(4, (FeedFault(3, 30, 39, "2020-01-04", "2020-01-04", ("unit change",), "adr is <broken>", ("k",)),))


class Tags(HTMLParser):
    """Every tag must close, and nothing may be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags, " ".join(tags.text)


@pytest.mark.parametrize("report", [REPORT, DriftReport(()), DriftReport(REPORT.windows[:1])])
def test_the_page_is_whole_and_needs_nothing_beside_it(report):
    page = draw_page(report, title="Drift of m", feed=FEED if report is REPORT else FeedReport())
    tags, _ = parse(page)
    assert tags.links == []
    assert not re.search(r"https?:|@import|url\(", page)
    assert "prefers-color-scheme:dark" in page


def test_the_page_says_what_moved_since_when_how_sure_what_it_costs_and_what_was_done():
    done = [Done("2020-01-05", "retraining, asked for by drift", "helped, +3.0 % of the loss won")]
    page = draw_page(REPORT, title="Drift of m", feed=FEED, decisions=done)
    _, text = parse(page)
    for said in (
        "lead <time>",
        "70",
        "140",
        "0.400",
        "0.100",
        "1.0e-09",
        "30%",
        "window 2, 2020-01-03",
        "auroc of window 1",
        "adr is <broken>",
        "p99 8 ms, the release showed 2 ms",
    ):
        assert said in text
    for said in ("2020-01-05", "retraining, asked for by drift", "helped, +3.0 % of the loss won"):
        assert said in text
    assert "lead <time>" not in page, "names are data, not markup"


def test_what_moves_began_where_its_unbroken_run_did():
    assert began("lead <time>", REPORT.windows).window == 2
    assert began("adr", REPORT.windows) is None


def test_the_same_report_gives_the_same_page():
    assert draw_page(REPORT, title="t", feed=FEED) == draw_page(REPORT, title="t", feed=FEED)


def test_the_light_is_red_for_a_broken_feed_or_promise_amber_for_a_drift_and_green_else():
    dropped = DriftReport(REPORT.windows, (replace(REPORT.performance[0], dropped=True),))
    found = {
        "feed": show_light(REPORT, FEED),
        "promise": show_light(dropped, FeedReport(4)),
        "drift": show_light(REPORT, FeedReport(4, FEED.faults[:0])),
        "quiet": show_light(DriftReport(REPORT.windows[:2]), FeedReport(2)),
        "service": show_light(DriftReport(REPORT.windows[:2], service=REPORT.service), FeedReport(2)),
        "nothing": show_light(DriftReport(()), FeedReport()),
    }
    assert {name: light["light"] for name, light in found.items()} == {
        "feed": "red", "promise": "red", "drift": "amber", "quiet": "green", "nothing": "green", "service": "amber"
    }  # fmt: skip
    assert found["feed"]["sentence"] == "adr is <broken>"
    assert found["drift"] == {"light": "amber", "sentence": "window 3 told", "at": "2020-01-04"}


def test_the_page_tells_the_newest_estimate_and_what_became_of_those_whose_labels_came():
    _, text = parse(draw_page(REPORT, title="Drift of m"))
    assert "window 3 <estimated>" in text
    assert "turned out 0 0.750 0.700 to 0.800 0.800 1 0.750 0.700 to 0.800 0.780" in text
    assert "estimated at" not in parse(draw_page(replace(REPORT, estimates=()), title="Drift of m"))[1]


def test_prometheus_reads_the_gauges():
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(render_drift(REPORT, FEED, model='m"1'))}
    assert set(families) == set(HELP)
    assert families["falaj_drift_light"].samples[0].value == 2
    assert families["falaj_drift_drifted_windows"].samples[0].value == 3
    ratios = {sample.labels["column"]: sample.value for sample in families["falaj_drift_effect_ratio"].samples}
    assert ratios == {"lead <time>": pytest.approx(4), "adr": pytest.approx(0.5)}
    estimated = [families[f"falaj_drift_metric_estimated{end}"].samples[0].value for end in ("_low", "", "_high")]
    assert estimated == [0.7, 0.75, 0.8]
    older = replace(REPORT, estimates=REPORT.estimates[:3])
    assert "metric_estimated" not in render_drift(older, FEED, model="m"), "the newest window has none"
    assert {sample.labels["model"] for family in families.values() for sample in family.samples} == {'m"1'}
