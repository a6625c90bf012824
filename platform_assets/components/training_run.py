"""One training, from its first start to its end: GPUs leased, a detached trainer followed, tried again by `stages.training.retry`.

The trainer belongs to nobody's process. A run that is terminated stops it (it saves its state); a run that is killed leaves it at work,
and the next run for the same training finds it, or its result, or its checkpoints. What the training is for is in training_steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from platform_assets.components.onlookers import Look, onlookers, show_progress
from platform_assets.components.step import Step, held_on
from platform_assets.components.training_command import TrainingJob, write_command
from platform_assets.components.training_lease import devices_of, leased
from platform_assets.errors import GivenUpError, StateError, TrainingError
from platform_assets.stages.placement.resolution import Placement, resolve
from platform_assets.stages.training.exits import EXIT, Exit, read_exit
from platform_assets.stages.training.retry import FINISHED, OUT_OF_MEMORY, Memory, Retry, Stop, Try, decide, judge

if TYPE_CHECKING:
    from resources.detached import Program
    from resources.trainings import Attempt, TrainingFolder

STOP_SECONDS = 30.0  # a trainer that is asked to stop has saved its state within 20
GiveUp = Callable[[], str | None]
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_LAST_WORDS = 4000
_FORGET_SECONDS = 30 * 86400.0


@dataclass
class Trained:
    """How a finished training came about: every start and its end."""

    attempts: list[dict[str, Any]] = field(default_factory=list)


def describe_attempts(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a person sees of the starts of a training."""
    rows = "\n".join(
        f"| {a['number']} | {a['profile']} | {a['micro_batches']} | {a['outcome']} | {a['step']} | {a['lost_steps']} | {a['seconds']:.1f} |"
        for a in attempts
    )
    head = "| start | profile | micro-batches | outcome | step | lost steps | seconds |\n|---|---|---|---|---|---|---|\n"
    return {
        "starts": len(attempts), "attempts": dg.MetadataValue.md(head + rows), "lost_steps": sum(a["lost_steps"] for a in attempts),
        "waited_for_gpus_seconds": round(sum(a["waited_seconds"] for a in attempts), 1),
    }  # fmt: skip


@contextmanager
def hold_training(step: Step, key: str) -> Iterator[TrainingFolder]:
    """Hold the folder of a training alone; where another run does, wait for it, and go on with what it leaves."""
    from resources.trainings import TrainingFolder, sweep

    told: set[str] = set()

    def waiting(holder: str) -> None:
        if holder not in told:
            told.add(holder)
            step.say(f"{holder} follows this very training ({key}); this run waits for it and takes its result.")
        step.parts.watcher.note(f"waiting for {holder}")

    trainings = step.parts.settings.home.trainings
    for name in sweep(trainings, older_than_seconds=_FORGET_SECONDS):
        step.say(f"Removed {trainings / name}: that training came to nothing, and nobody has asked for it for a month.")
    folder = TrainingFolder(trainings / key)
    with folder.hold(f"run {step.context.run.run_id}", waiting=waiting):
        mirror = step.parts.mirror
        for name in mirror.sweep(older_than_seconds=_FORGET_SECONDS):
            step.say(f"Removed training {name} from the store: it came to nothing, and nobody has asked for it for a month.")
        if mirror.bring(folder.root):
            step.say(f"Brought {key} from the store, with its checkpoints: another machine began it.")
        try:
            yield folder
        finally:
            if folder.root.exists():
                mirror.keep(folder.root)
        if not folder.root.exists():  # its result is stored
            mirror.drop(key)


def train(step: Step, job: TrainingJob, folder: TrainingFolder, *, looks: Sequence[Look] = (), give_up: GiveUp | None = None) -> Trained:
    """Bring a training to its end, in as many starts as are declared; its result is in `folder.out`. Raises TrainingError.

    `looks` are called with `folder.out` about every second, in a thread of their own: one that fails looks no more and stops nothing.
    `give_up` is asked as often: the sentence that it returns ends the training as GivenUpError.
    """
    return _Supervisor(step, job, folder, looks=looks, give_up=give_up).run()


class _Supervisor:
    def __init__(self, step: Step, job: TrainingJob, folder: TrainingFolder, *, looks: Sequence[Look], give_up: GiveUp | None) -> None:
        self._step, self._job, self._folder, self._looks, self._why_stop = step, job, folder, looks, give_up
        self._compute = step.parts.catalogue.compute
        self._metered = job.profile
        self._declared = Try(job.profile, job.model.training.micro_batches)

    def run(self) -> Trained:
        training = self._job.model.training
        done = Trained(self._finished_before())
        if done.attempts:
            return done
        attempt, tried = self._folder.open_attempt(), self._first_try()
        for starts in range(1, training.attempts + 1):
            if attempt is None:
                attempt, ended = self._start(tried)
            else:
                tried = Try(attempt.how["profile"], attempt.how["micro_batches"])
                ended = self._attach(attempt)
                tried = tried if tried.profile in self._compute.profiles else self._declared
            done.attempts.append({"number": attempt.number, **attempt.how, **asdict(ended)})
            answer = self._decide(ended, tried, starts=starts)
            if answer is None:
                return done
            if isinstance(answer, Stop):
                raise TrainingError(f"{answer.sentence} Its folder is {self._folder.root}.")
            self._step.say(answer.sentence)
            attempt, tried = None, answer.next
        raise AssertionError("the last start was decided upon")

    def _finished_before(self) -> list[dict[str, Any]]:
        """The start that finished this training, where an earlier run saw its end and did not come to storing it."""
        attempts = self._folder.attempts()
        ended = attempts[-1].ended() if attempts else None
        if ended is None or ended["outcome"] != FINISHED or read_exit(self._folder.out) is None:
            return []
        return [{"number": attempts[-1].number, **attempts[-1].how, **ended}]

    def _decide(self, ended: Exit, tried: Try, *, starts: int) -> Retry | Stop | None:
        training = self._job.model.training
        return decide(
            ended, tried=tried, starts=starts, most_starts=training.attempts, larger=self._larger(tried),
            batch_size=training.batch_size, processes=self._place(tried).got.processes,
        )  # fmt: skip

    def _larger(self, tried: Try) -> str | None:
        """Return the larger profile where there is more for it: of one machine's memory it would get the same again, at its own price."""
        profile, declared = self._compute.profiles[tried.profile], self._compute.gpus
        if profile.larger is None:
            return None
        if declared is not None:
            there_is_more = profile.gpus < self._compute.profiles[profile.larger].gpus <= declared
        else:
            there_is_more = self._place(Try(profile.larger, 1)).got.gpus > self._place(tried).got.gpus
        return profile.larger if there_is_more else None

    def _first_try(self) -> Try:
        """As declared; where an earlier run of the same declaration had to make do with less memory, as that one."""
        attempts = self._folder.attempts()
        if (
            not attempts
            or attempts[-1].how["declared"] != asdict(self._declared)
            or attempts[-1].how["profile"] not in self._compute.profiles
        ):
            return self._declared
        last = Try(attempts[-1].how["profile"], attempts[-1].how["micro_batches"])
        ended = attempts[-1].ended()
        if ended is None or ended["outcome"] != OUT_OF_MEMORY:
            return last
        answer = self._decide(Exit(**ended), last, starts=0)
        return answer.next if isinstance(answer, Retry) else last

    def _place(self, tried: Try) -> Placement:
        from resources.machine import look_at_machine

        profile = self._compute.profiles[tried.profile]
        return resolve(profile, name=tried.profile, machine=look_at_machine(), threads=self._job.model.training.threads)

    def _begin(self, profile: str) -> Placement:
        """Say what the next start runs on, to the run and to the meter of its cost."""
        if profile != self._metered:
            self._metered = profile
            self._step.meter.use(held_on(profile, self._step.parts))
        return self._step.place(threads=self._job.model.training.threads, profile=profile)

    def _start(self, tried: Try) -> tuple[Attempt, Exit]:
        from resources.detached import start
        from resources.machine import pin
        from resources.settings import child_environment

        placement = self._begin(tried.profile)
        with leased(self._step, self._job.model, placement) as (lease, waited):
            how = {
                **asdict(tried), "declared": asdict(self._declared),
                "run_id": self._step.context.run.run_id, "began": time.time(), "waited_seconds": waited,
                "token": lease.token if lease else None, "pool": lease.pool if lease else None, "slots": list(lease.slots) if lease else [],
            }  # fmt: skip
            attempt = self._folder.new_attempt(how)
            (self._folder.out / EXIT).unlink(missing_ok=True)  # of the start before
            command = write_command(
                self._step, self._job, here=attempt.folder, out=self._folder.out, placement=placement, tried=tried, lease=lease
            )
            with self._heard(attempt) as variables:
                environment = {**child_environment(self._step.parts.settings), **placement.environment(), **variables}
                devices = devices_of(self._step, lease)
                self._step.meter.beat()  # a run that takes this trainer over pays from where this one's entry ends
                program = start(command, attempt.folder, environment={**environment, **devices})
                return attempt, self._follow(program, attempt, first=lambda: pin(program.pid, placement))[0]

    def _attach(self, attempt: Attempt) -> Exit:
        """Follow a trainer that an earlier run has started; it may have ended meanwhile."""
        from resources.detached import find

        program = find(attempt.folder)
        now = "which still runs" if program is not None else "which has ended"
        known = attempt.how["profile"] in self._compute.profiles  # the catalogue may have changed meanwhile
        self._begin(attempt.how["profile"] if known else self._job.profile)
        self._step.say(f"Attached to start {attempt.number} of run {attempt.how['run_id']}, {now}.")
        attached = time.time()
        try:
            with self._heard(attempt):
                if program is None:
                    ended = self._note_end(attempt, code=None, memory=Memory())
                    self._step.meter.take_over(attempt.how["run_id"], until=attempt.how["began"] + ended.seconds)
                    return ended
                ended, cpu_seconds = self._follow(program, attempt)
                # No child of this process, which counts its own.
                self._step.meter.take_over(attempt.how["run_id"], until=attached, cpu_seconds=cpu_seconds)
                return ended
        finally:
            if attempt.how["token"]:
                self._step.parts.leases.release(attempt.how["token"], pool=attempt.how["pool"])

    @contextmanager
    def _heard(self, attempt: Attempt) -> Iterator[dict[str, str]]:
        """Listen to the trainer's messages; yields the variables that tell it where to write them."""
        from resources.detached import KeptContext, KeptMessages

        injector, reader = KeptContext(attempt.folder), KeptMessages(attempt.folder)
        with (
            dg.open_pipes_session(self._step.context, context_injector=injector, message_reader=reader) as session,
            onlookers(
                [*self._looks, show_progress(self._step), lambda _: self._step.parts.mirror.keep(self._folder.root)], self._folder.out
            ),
        ):
            yield dict(session.get_bootstrap_env_vars())

    def _follow(self, program: Program, attempt: Attempt, *, first: Callable[[], object] | None = None) -> tuple[Exit, float]:
        """Wait until the trainer has ended; return how, and its CPU seconds. Whatever ends this wait stops it too, all but a kill."""
        from resources.detached import stop
        from resources.memory import Witness

        witness = Witness(program.pid)
        token, due = attempt.how["token"], 0.0
        try:
            if first is not None:
                first()
            while program.alive:
                time.sleep(_POLL_SECONDS)
                if time.monotonic() >= due:
                    due = time.monotonic() + _LOOK_SECONDS
                    witness.look()
                    self._renew(token)
                    self._give_up()
        except BaseException:
            if not stop(program, seconds=STOP_SECONDS):
                self._step.context.log.warning("The trainer had to be killed: it had not ended %.0f s after SIGTERM.", STOP_SECONDS)
            self._note_end(attempt, code=program.code, memory=witness.memory())
            raise
        return self._note_end(attempt, code=program.code, memory=witness.memory()), witness.cpu_seconds

    def _give_up(self) -> None:
        if self._why_stop is not None and (why := self._why_stop()) is not None:
            raise GivenUpError(why)

    def _renew(self, token: str | None) -> None:
        """Beside the trainer's own heartbeat, which begins late where torchrun is slow to start."""
        try:
            if token is not None:
                self._step.parts.leases.renew(token)
        except StateError as error:
            self._step.context.log.warning(str(error))

    def _note_end(self, attempt: Attempt, *, code: int | None, memory: Memory) -> Exit:
        from resources.detached import OUTPUT, end_leftovers

        end_leftovers(attempt.folder)
        ended = judge(read_exit(self._folder.out), code=code, memory=memory)
        attempt.note_end(asdict(ended))
        if ended.outcome != FINISHED:
            (self._folder.out / EXIT).unlink(missing_ok=True)
            output = attempt.folder / OUTPUT
            words = output.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip() if output.exists() else ""
            self._step.context.log.warning("Start %d ended: %s. %s\n%s", attempt.number, ended.outcome, ended.sentence, words)
        return ended
