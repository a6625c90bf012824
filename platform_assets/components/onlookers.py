"""Looking at a program's folder while it runs, in threads: a look that fails looks no more, and stops nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from platform_assets.components.step import Step

Look = Callable[[Path], None]
_LOOK_SECONDS = 1.0
_LAST_LOOK_SECONDS = 30.0


@contextmanager
def onlookers(looks: Sequence[Look], out: Path) -> Iterator[None]:
    """Let every look see `out` about once a second and once more at the end."""
    over = threading.Event()

    def follow(look: Look) -> None:
        while True:
            ending = over.wait(_LOOK_SECONDS)
            look(out)
            if ending:
                return

    threads = [threading.Thread(target=follow, args=(look,), name="onlooker", daemon=True) for look in looks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_LAST_LOOK_SECONDS)


def show_progress(step: Step) -> Look:
    """Show the newest line of progress.jsonl to whoever watches this process."""
    read = 0

    def look(out: Path) -> None:
        nonlocal read
        path = out / "progress.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            read = min(read, path.stat().st_size)
            file.seek(read)
            whole, newline, _ = file.read().rpartition(b"\n")
        if newline:
            read += len(whole) + 1
            told = json.loads(whole.rpartition(b"\n")[2])
            epoch = f" {told['epoch']:.0f} of {told['epochs']:.0f}" if "epochs" in told else ""
            step.parts.watcher.note(f"{told['step']}{epoch}")

    return look
