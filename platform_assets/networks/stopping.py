"""How a training is asked to end early: a flag that a signal or another thread sets, and that the work looks at between its steps."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from platform_assets.errors import PreemptedError

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_SECONDS = 18.0  # a spot machine is gone some 25 to 30 s after its SIGTERM, and whoever waits for us waits 20


class Stop:
    """A request to end; the first reason stays.

    `at_last` is called, from a thread, when the work has not ended `GRACE_SECONDS` after it was asked: it is stuck in a step, in a
    collective, in a compiler.
    """

    def __init__(self, *, at_last: Callable[[str], None] | None = None) -> None:
        self.reason: str | None = None
        self._at_last = at_last
        self._lock = threading.Lock()

    def ask(self, reason: str) -> None:
        """Ask the work to save its state and end; safe from any thread."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
        if self._at_last is not None:
            timer = threading.Timer(GRACE_SECONDS, self._at_last, (reason,))
            timer.daemon = True
            timer.start()

    def check(self) -> None:
        """Raise PreemptedError when asked to end, where there is nothing to save."""
        if self.reason is not None:
            raise PreemptedError(self.reason)

    def listen(self) -> None:
        """Take SIGTERM (a spot machine taken away, an operator's stop) and SIGINT as requests to end.

        A handler of Python's runs in the main thread, which may be in a long call; a thread hears of the signal at once.
        """
        hears, says = os.pipe()
        os.set_blocking(says, False)
        signal.set_wakeup_fd(says)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._hear, args=(hears,), name="signals", daemon=True).start()

    def _hear(self, hears: int) -> None:
        while heard := os.read(hears, 1):
            if heard[0] in {signal.SIGTERM, signal.SIGINT}:
                self.ask(f"stopped by {signal.Signals(heard[0]).name}")
