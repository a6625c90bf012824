"""What every clock and notifier promises."""

import http.server
import logging
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.clock import SqliteClock
from resources.notifiers import LogNotifier, Notifiers, WebhookNotifier
from resources.testing.state import MemoryClock, RecordingNotifier


@pytest.fixture(params=["sqlite", "memory"])
def clock(request, tmp_path):
    return SqliteClock(tmp_path / "state.sqlite") if request.param == "sqlite" else MemoryClock()


def test_a_clock_never_moved_shows_the_wall_clock(clock):
    wall = datetime.now(UTC).replace(tzinfo=None)
    assert abs(clock.now("hotels") - wall) < timedelta(minutes=1)


def test_a_clock_may_start_in_the_past_and_then_only_moves_forward(clock):
    assert clock.advance("hotels", datetime(2016, 7, 1)) == datetime(2016, 7, 1)
    assert clock.advance("hotels", datetime(2016, 7, 2, 3, 4, 5, 6)) == datetime(2016, 7, 2, 3, 4, 5, 6)
    assert clock.advance("hotels", datetime(2016, 7, 1)) == datetime(2016, 7, 2, 3, 4, 5, 6)
    assert clock.now("hotels") == datetime(2016, 7, 2, 3, 4, 5, 6)


def test_streams_have_clocks_of_their_own(clock):
    clock.advance("hotels", datetime(2016, 7, 1))
    clock.advance("digits", datetime(2020, 1, 1))
    assert clock.now("hotels") == datetime(2016, 7, 1)


def test_a_time_with_a_zone_is_brought_to_utc(clock):
    assert clock.advance("hotels", datetime(2016, 7, 1, 4, tzinfo=timezone(timedelta(hours=4)))) == datetime(2016, 7, 1)


@given(st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20))
def test_a_clock_stands_at_the_latest_time_it_was_told_in_any_order(times):
    clock = MemoryClock()
    for at in times:
        clock.advance("s", at)
    assert clock.now("s") == max(times)


def test_a_clock_is_kept_for_the_next_process(tmp_path):
    SqliteClock(tmp_path / "state.sqlite").advance("hotels", datetime(2016, 7, 1))
    assert SqliteClock(tmp_path / "state.sqlite").now("hotels") == datetime(2016, 7, 1)


class _Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = http.server.HTTPServer(("127.0.0.1", 0), _Receiver)
    server.bodies, server.answer = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "make", [LogNotifier, RecordingNotifier, lambda: Notifiers([LogNotifier()]), lambda: WebhookNotifier("http://127.0.0.1:9/hook")]
)
@pytest.mark.parametrize("severity", ["info", "warning", "error"])
def test_a_notifier_never_stops_its_caller(make, severity):
    make().notify("drift found", "column adr", severity=severity)


def test_a_webhook_gets_title_text_and_severity(receiver):
    WebhookNotifier(f"http://127.0.0.1:{receiver.server_port}/").notify("drift found", "column adr", severity="warning")
    assert receiver.bodies == [b'{"title": "drift found", "text": "column adr", "severity": "warning"}']


def test_a_refused_message_is_logged_and_the_next_notifier_is_told(receiver, caplog):
    receiver.answer = 500
    recording = RecordingNotifier()
    with caplog.at_level(logging.WARNING):
        Notifiers([WebhookNotifier(f"http://127.0.0.1:{receiver.server_port}/"), recording]).notify("t", "x", severity="error")
    assert "did not take 't'" in caplog.text
    assert [message.title for message in recording.messages] == ["t"]


def test_a_webhook_that_is_no_http_url_is_refused_at_once():
    with pytest.raises(ValueError, match="http or https"):
        WebhookNotifier("file:///etc/passwd")
