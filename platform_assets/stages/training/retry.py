"""What becomes of a training whose trainer has ended: done, tried again (where, and cut how small), or given up. Pure rules."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from platform_assets.stages.training.exits import Exit

FINISHED, PREEMPTED, OUT_OF_MEMORY, DIVERGED, FAILED = "finished", "preempted", "out_of_memory", "diverged", "failed"
KILLED = "killed"  # said of a trainer that left no word itself
# Of the memory that it may use: what a killed process was seen to hold when only the kernel can have been the killer.
_NEAR_THE_LIMIT = 0.9
_SHELLS_SIGNALS = 128
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


@dataclass(frozen=True)
class Memory:
    """What is known of a dead trainer's memory: processes the kernel killed for it meanwhile, and the last share seen of its limit."""

    kernel_kills: int = 0
    share_of_limit: float = 0.0


@dataclass(frozen=True)
class Try:
    """One start of a training: its compute profile, and the parts that each step's rows are cut into."""

    profile: str
    micro_batches: int


@dataclass(frozen=True)
class Retry:
    """Start again, like this."""

    next: Try
    sentence: str


@dataclass(frozen=True)
class Stop:
    """Do not start again."""

    sentence: str


def judge(told: Exit | None, *, code: int | None, memory: Memory) -> Exit:
    """Say how a trainer ended: as it told in exit.json, else by its exit status (negative: the signal; None: unknown) and its memory."""
    if told is None:
        return _judge_silence(code, memory)
    if told.outcome == PREEMPTED and memory.kernel_kills:
        # The first process of several is stopped, as if preempted, when the kernel has killed another.
        why = f"The kernel killed {memory.kernel_kills} of its processes for want of memory."
        return replace(told, outcome=OUT_OF_MEMORY, sentence=why)
    return told


def _judge_silence(code: int | None, memory: Memory) -> Exit:
    number = _signal_of(code)
    told = f"signal {signal.Signals(number).name}" if number else "an unknown end" if code is None else f"exit status {code}"
    if memory.kernel_kills and number in (None, signal.SIGKILL):
        why = f"The kernel killed {memory.kernel_kills} of its processes for want of memory ({told})."
        return _exit(OUT_OF_MEMORY, code, why)
    if number == signal.SIGKILL and memory.share_of_limit >= _NEAR_THE_LIMIT:
        why = f"It was killed while it held {memory.share_of_limit:.0%} of the memory it may use."
        return _exit(OUT_OF_MEMORY, code, why)
    if number in _CRASHES or (number is None and code):
        return _exit(FAILED, code, f"The trainer crashed ({told}) before it could say why; see output.log.")
    if number in (signal.SIGTERM, signal.SIGINT):
        return _exit(PREEMPTED, code, f"It was asked to stop ({told}) before it had begun.")
    return _exit(KILLED, code, f"It was killed from outside ({told}).")


def _exit(outcome: str, code: int | None, sentence: str) -> Exit:
    return Exit(outcome, -signal.SIGKILL if code is None else code, sentence, step=0, seconds=0.0, restored_from=None, lost_steps=0)


def _signal_of(code: int | None) -> int | None:
    """Return the signal in an exit status, as Python (-9) or a shell (137) writes it."""
    if code is None or 0 <= code <= _SHELLS_SIGNALS:
        return None
    number = -code if code < 0 else code - _SHELLS_SIGNALS
    return number if number in set(signal.Signals) else None


def decide(
    ended: Exit, *, tried: Try, starts: int, most_starts: int, larger: str | None, batch_size: int, processes: int
) -> Retry | Stop | None:
    """Decide after an end; None: it is finished.

    Preempted and killed trainings go on where they are. After running out of memory the larger profile is taken, where one is declared,
    else each step's rows are cut into twice as many parts, down to one row a process. `batch_size` rows are shared by `processes`.
    """
    if ended.outcome == FINISHED:
        return None
    again = _after_memory(tried, larger=larger, batch_size=batch_size, processes=processes) if ended.outcome == OUT_OF_MEMORY else tried
    if ended.outcome not in (PREEMPTED, KILLED, OUT_OF_MEMORY):
        return Stop(f"The training {ended.outcome}: {ended.sentence}")
    if again is None:
        text = f"with one row a process at a time on profile {tried.profile!r}; name one with more memory in training.compute"
        return Stop(f"The training ran out of memory {text}. {ended.sentence}")
    if starts >= most_starts:
        text = f"The training was {_word(ended)} at its start {starts} of {most_starts}; raise training.attempts, or run it again"
        return Stop(f"{text}. {ended.sentence}")
    return Retry(again, f"{ended.sentence} Start {starts + 1} of {most_starts} goes on{_changes(tried, again)}.")


def _after_memory(tried: Try, *, larger: str | None, batch_size: int, processes: int) -> Try | None:
    if larger is not None:
        return Try(larger, tried.micro_batches)
    smaller = Try(tried.profile, tried.micro_batches * 2)
    return smaller if smaller.micro_batches * processes <= batch_size else None


def _word(ended: Exit) -> str:
    return "out of memory" if ended.outcome == OUT_OF_MEMORY else ended.outcome


def _changes(tried: Try, again: Try) -> str:
    if again.profile != tried.profile:
        return f" on the larger profile {again.profile!r}"
    return f" with {again.micro_batches} micro-batches a step" if again != tried else " from its last checkpoint"
