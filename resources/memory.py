"""What the kernel says of a process's memory: its limit, what its family holds, how often the OOM killer struck beside it (Linux)."""

from __future__ import annotations

from pathlib import Path

from platform_assets.stages.training.retry import Memory

_CGROUPS = Path("/sys/fs/cgroup")
# Under version 1, "no limit" is the largest multiple of a page: more than any machine has.
_LIMITS, _EVENTS = ("memory.max", "memory.limit_in_bytes"), ("memory.events", "memory.oom_control")


def memory_groups(pid: int, *, proc: Path = Path("/proc"), root: Path = _CGROUPS) -> list[Path]:
    """Folders of the cgroup that counts a process's memory, and of those around it, innermost first (cgroups(7), version 1 and 2)."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: dict[str, list[Path]] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root / "memory" if "memory" in controllers.split(",") else root if not controllers else None
        if base is not None:
            inner = base / path.lstrip("/")
            found[controllers] = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    groups = found.get("memory") or next(iter(found.values()), [])
    return [folder for folder in groups if any((folder / name).exists() for name in _EVENTS)]


def memory_limit(pid: int) -> int:
    """Bytes that a process may use: the smallest limit of its cgroups, at most the machine's memory."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in memory_groups(pid):
        texts = [(folder / name).read_text().strip() for name in _LIMITS if (folder / name).exists()]
        limits.extend(int(text) for text in texts if text.isdecimal())
    return min(limits)


def count_oom_kills(groups: list[Path]) -> int:
    """Count the processes killed for want of memory in the innermost of these groups; on the whole machine where there is none."""
    for folder in groups:
        for name in _EVENTS:
            count = _count(folder / name)
            if count is not None:
                return count
    return _count(Path("/proc/vmstat")) or 0


def _count(path: Path) -> int | None:
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(word[1]) for word in words if word[0] == "oom_kill"), None)


def look_at_family(pid: int) -> tuple[int, float]:
    """Bytes of memory that a process and its descendants hold, and the CPU seconds they have used; nothing once it is gone."""
    import psutil

    held, used = 0, 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return held, used
    for member in family:
        try:
            held += int(member.memory_info().rss)
            used += sum(member.cpu_times()[:4])  # user and system, of itself and of children that have ended
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return held, used


class Witness:
    """What is seen of a program's memory while it lives, to tell afterwards why it was killed; and of its CPU time."""

    def __init__(self, pid: int) -> None:
        self._pid, self._groups, self._limit = pid, memory_groups(pid), memory_limit(pid)
        self._kills = count_oom_kills(self._groups)
        self._share = self.cpu_seconds = 0.0

    def look(self) -> None:
        """Take down what the program and its children hold and have used now."""
        held, used = look_at_family(self._pid)
        self._share = held / self._limit if held else self._share  # nothing: it has just died
        self.cpu_seconds = max(self.cpu_seconds, used)

    def memory(self) -> Memory:
        """What is known, once it is dead."""
        return Memory(kernel_kills=count_oom_kills(self._groups) - self._kills, share_of_limit=self._share)
