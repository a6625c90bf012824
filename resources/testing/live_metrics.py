"""Fake of the gauges that a monitoring system picks up, in memory."""

from __future__ import annotations


class MemoryMetrics:
    """Texts by name; `ever` keeps each that was shown."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.ever: list[str] = []

    def show(self, name: str, text: str) -> None:
        """Keep the text."""
        self.shown[name] = text
        self.ever.append(text)

    def withdraw(self, name: str) -> None:
        """Forget it."""
        self.shown.pop(name, None)
