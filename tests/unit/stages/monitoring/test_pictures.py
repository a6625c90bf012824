"""Pictures that the web UI shows beside a drift report."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from platform_assets.specs.records import ColumnDrift, WindowPerformance, WindowReport
from platform_assets.stages.monitoring.pictures import draw_drift, draw_performance

MOVED = ColumnDrift("lead <time>", "ks", 0.4, 1e-9, 0.1, drifted=True, importance=0.3)
STILL = ColumnDrift("adr", "ks", 0.05, 0.5, 0.1, drifted=False, importance=0.2)


def window(number: int, *columns: ColumnDrift) -> WindowReport:
    return WindowReport(number, number * 10, number * 10 + 9, "", "", ("v",), columns, drifted=True, evidence="")


def texts(svg: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_heat_map_names_columns_most_important_first_and_marks_what_moved():
    svg = draw_drift([window(3, STILL), window(4, STILL, MOVED)])
    assert texts(svg)[:2] == ["lead <time>", "adr"]
    assert {"3", "4"} <= set(texts(svg)), "windows by their own numbers"
    paths = [found.get("d") or "" for found in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
    assert sum(path.count("h13v13") for path in paths) == 3, "a cell for each column that a window has"
    assert sum(path.count("a2.5") // 2 for path in paths) == 1, "a dot where one moved"


def test_a_long_log_shows_its_newest_windows_in_a_bounded_picture():
    svg = draw_drift([window(number, STILL, MOVED) for number in range(1000)])
    assert texts(svg)[2] == "880"
    assert len(svg) < 20_000


def test_performance_shows_what_was_measured_promised_and_decided():
    def figures(number: int, value: float | None) -> WindowPerformance:
        settled = value is not None
        return WindowPerformance(number, "", 100, 100, "auroc", value, 0.9, settled=settled, dropped=False, sentence="")

    svg = draw_performance([figures(0, 0.8), figures(1, 0.95), figures(2, None)], decisions={1: "retraining <asked>"})
    measured = [found.get("points") for found in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}polyline")]
    assert measured == ["60.0,79.7 375.0,79.7 690.0,79.7", "60.0,215.0 375.0,12.0"]
    assert {"0.95", "0.8", "retraining <asked>"} <= set(texts(svg))


def test_pictures_are_whole_also_of_nothing():
    for svg in (draw_drift([]), draw_performance([], decisions={0: "asked"})):
        assert ET.fromstring(svg).tag.endswith("svg")
