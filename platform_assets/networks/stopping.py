"""How a training is asked to end early: a flag that a signal or another thread sets, and that the work looks at between its steps."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from platform_assets.errors import PreemptedError

if TYPE_CHECKING:
    from types import FrameType


class Stop:
    """A request to end; the first reason stays."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def ask(self, reason: str) -> None:
        """Ask the work to save its state and end; safe from any thread and from a signal handler."""
        if self.reason is None:
            self.reason = reason

    def check(self) -> None:
        """Raise PreemptedError when asked to end, where there is nothing to save."""
        if self.reason is not None:
            raise PreemptedError(self.reason)

    def listen(self) -> None:
        """Take SIGTERM (a spot machine taken away, an operator's stop) and SIGINT as requests to end."""

        def asked(number: int, _: FrameType | None) -> None:
            self.ask(f"stopped by {signal.Signals(number).name}")

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGINT, asked)
