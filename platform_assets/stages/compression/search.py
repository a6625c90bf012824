"""The search over compositions of methods, under a budget of time: successive halving, then finishing, then one look at the holdout.

What a form costs is known before it learns, so one that costs more than the teacher is never taught. The rest learn in rounds; after each
the half stays that is best in loss and cost together. What is left goes on (cut, tuned for few bits) and is finished in every way that
fits it. Choosing is by the calibration rows alone; the holdout is asked once, at the end, for what is reported.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from platform_assets.errors import StageError
from platform_assets.measures import HIGHER_IS_BETTER, METRICS, leading, measure
from platform_assets.networks.checkpoint import load_trained, write_json, write_text
from platform_assets.networks.fitting import predict, to_tensors, warp_images
from platform_assets.networks.rows import Rows, read_rows
from platform_assets.specs.candidates import Candidate, Rejection
from platform_assets.specs.guarantee import BLIND_METHODS
from platform_assets.specs.record_json import to_json
from platform_assets.stages.compression.faithfulness import HIDDEN_ROWS, Exam, chance_of_loss, examine, make_exam
from platform_assets.stages.compression.forms import family_of, list_continuations, list_finishes, list_starts, split_name
from platform_assets.stages.compression.measure import (
    CALLS,
    GLANCE,
    INVARIANCE_ROWS,
    ROUNDS,
    Timing,
    answer,
    cut,
    feeds,
    open_session,
    time_sessions,
)
from platform_assets.stages.compression.methods import Bench, load_method, read_steps
from platform_assets.stages.compression.teaching import Teaching, make_lessons
from platform_assets.stages.compression.workshop import TEACHER, Clock, Part, Workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from platform_assets.networks.companions import Report
    from platform_assets.networks.plans import CompressionPlan

# What a graph or a network that a method cannot take makes torch-pruning, torch and onnxruntime raise.
FAILURES = (StageError, RuntimeError, ValueError, NotImplementedError, TypeError, KeyError, IndexError, AttributeError)
# Shares of the budget, STARTING with the lessons; the rest is for finishing and measuring.
LESSONS, STARTING, LEARNING, GOING_ON = 0.12, 0.35, 0.45, 0.12
LEFT = (0.75, 0.5, 0.5)  # of what learns, after each round
# At least so many of each family stay: convolutions begin more slowly than perceptrons, and end better.
KEPT = {"perceptrons": 2, "convolutions": 2, "cuts": 1, "trees": 2}
SECONDS_A_START = 2.0  # of learning, that a start is given in the first round at least; a smaller budget begins with fewer
SURVIVORS, GROWN = 4, 7  # of what learns, and of trees, which are measured as they are
COPIES, COPY_WARP = 3, 0.5  # warped copies of each calibration picture that a loss is judged on, too: 234 pictures alone say little
BENCH_ROWS = 256
QUICK_ROUNDS = 5  # of timing, when time is short


def search(training: Path, data: Path, plan: CompressionPlan, *, work_dir: Path, report: Report) -> tuple[list[Candidate], list[Rejection]]:
    """Search candidates; what was not good enough, could not be made or is not faithful is a rejection with its reason.

    `training` is a training folder, `data` the training set it came from. `digest` of a candidate is the SHA-256 of its model.onnx.
    Raises TrainingError or DataError when teacher or data cannot be read at all.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    found = _Search(training, data, plan, work_dir=work_dir, report=report)
    found.halve()
    found.go_on()
    candidates = found.measure(found.finish())
    write_json(work_dir / "rejections.json", [vars(entry) for entry in found.rejected])
    return candidates, found.rejected


class _Search:
    def __init__(self, training: Path, data: Path, plan: CompressionPlan, *, work_dir: Path, report: Report) -> None:
        self._plan, self._data, self._report, self._root = plan, data, report, work_dir
        self._clock = Clock(work_dir, plan.budget_seconds)
        self._teacher = load_trained(training)
        if self._teacher.plan.privacy is not None and (seen := [one for one in plan.methods if one not in BLIND_METHODS]):
            raise StageError(
                f"the teacher was trained with differential privacy, and {', '.join(seen)} would look at rows again, uncounted"
            )
        schema, fitted = self._teacher.schema, self._teacher.preprocessing
        rows = {split: read_rows(data, split, schema=schema) for split in ("train", "calibration")}
        lessons = make_lessons(
            self._teacher, train=to_tensors(rows["train"], preprocessing=fitted), labels=rows["train"].labels,
            seconds=LESSONS * plan.budget_seconds,
        )  # fmt: skip
        judged = _with_copies(rows["calibration"], seed=self._teacher.plan.seed)
        self._inputs, self._cases = feeds(judged), len(rows["calibration"])
        teaching = Teaching(
            self._teacher, plan, lessons, rows["train"], to_tensors(rows["calibration"], preprocessing=fitted), rows["calibration"], report,
            self._clock.left,
        )  # fmt: skip
        bench = Bench(cut(self._inputs, 0, BENCH_ROWS), lambda model: answer(self._open(model), cut(self._inputs, 0, BENCH_ROWS)))
        self._workshop = Workshop(work_dir, teaching, bench=bench)
        self.rejected: list[Rejection] = []
        self._parts: list[Part] = []
        teacher = self._open(self._workshop.finish(TEACHER))
        self._exam: Exam = make_exam(judged, self._inputs, teacher=teacher, schema=schema, groups=plan.groups, seed=self._teacher.plan.seed)
        self._sign = 1 if HIGHER_IS_BETTER[METRICS[plan.kind][0]] else -1
        self._best = leading(measure(judged.labels, probabilities=self._exam.said, kind=plan.kind), kind=plan.kind)
        self._glance = self._look(teacher)
        report.step("compression/lessons", rows=float(len(lessons)), seconds=self._clock.spent)

    # --- rounds

    def halve(self) -> None:
        """Start what there is time for, drop what costs more than the teacher, and halve what is left, round after round."""
        learning = LEARNING * self._plan.budget_seconds
        starts = list_starts(self._teacher, self._plan.methods)
        most = max(2, int(learning / len(LEFT) / SECONDS_A_START))
        parts: list[Part] = []
        begun = 0
        for name in starts:
            learns = load_method(read_steps(name)[0].method).RATE > 0
            if (learns and begun == most) or (not learns and len(parts) > 1 and self._clock.spent > STARTING * self._plan.budget_seconds):
                self._reject([name], self._no_time())
                continue
            part = self._try(name, self._start, name)
            begun += learns
            if part:
                parts.append(part)
        for turn, share in enumerate(LEFT, start=1):
            pupils = [part for part in parts if part.learns]
            each = learning / len(LEFT) / max(1, len(pupils))
            parts = [part for part in parts if self._try(part.name, self._learn, part, each, turn)]
            pupils, grown = ([part for part in parts if part.learns is learns] for learns in (True, False))
            left = max(SURVIVORS, math.ceil(share * len(pupils)))
            parts = [*self._drop_worst(pupils, left=left, turn=turn), *self._drop_worst(grown, left=GROWN, turn=turn)]
        self._parts = parts

    def go_on(self) -> None:
        """Let survivors go on: cut to half, then tuned for few bits."""
        names = [name for part in self._parts for name in list_continuations(part.name, self._plan.methods)]
        begun = [part for name in names if (part := self._try(name, self._start, name))]
        each = GOING_ON * self._plan.budget_seconds / max(1, len(begun))
        self._parts += [part for part in begun if self._try(part.name, self._learn, part, each, 1)]

    def _start(self, name: str) -> Part:
        part = self._workshop.part(name)
        if not part.size_bytes:
            file = self._workshop.draw(part, self._root / "parts" / name / "start.onnx")
            look = self._look(self._open(file))
            part.cpu_us_b1, part.cpu_us_b32, part.size_bytes = look.cpu_us_b1, look.cpu_us_b32, file.stat().st_size
            if part.cpu_us_b1 > self._glance.cpu_us_b1 and part.cpu_us_b32 > self._glance.cpu_us_b32:
                raise StageError(
                    f"it costs {part.cpu_us_b1:.0f} and {part.cpu_us_b32:.1f} us of CPU a row (1 and 32 at once), the teacher "
                    f"{self._glance.cpu_us_b1:.0f} and {self._glance.cpu_us_b32:.1f}, before it has learnt anything"
                )
        return part

    def _learn(self, part: Part, seconds: float, turn: int) -> Part:
        if part.rounds < turn:
            self._workshop.teach(part, seconds=seconds, rounds=turn)
            file = self._workshop.draw(part, self._root / "parts" / part.name / "now.onnx")
            found = answer(self._open(file), self._inputs)
            part.drop, part.drop_error = self._loss(found), self._chance(found)
            self._workshop.keep(part)
            self._clock.keep()
        self._report.step(
            f"compression/{part.name}", round=float(turn), drop=part.drop, cpu_us_b1=part.cpu_us_b1, cpu_us_b32=part.cpu_us_b32
        )
        if not np.isfinite(part.drop):
            raise StageError("it answers with values that are not numbers")
        return part

    def _drop_worst(self, parts: list[Part], *, left: int, turn: int) -> list[Part]:
        ranked = rank(parts, tolerate=self._plan.tolerate_drop)
        kept = best_of_families(ranked, most=left)
        for part in [one for one in ranked if one not in kept]:
            self._reject([part.name], (
                f"left in round {turn}: loses {part.drop:.4f} {METRICS[self._plan.kind][0]} at {part.cpu_us_b1:.0f} us a row and "
                f"{part.size_bytes} bytes; {ranked[0].name} loses {ranked[0].drop:.4f} at {ranked[0].cpu_us_b1:.0f} us"
            ))  # fmt: skip
        return kept

    # --- files

    def finish(self) -> dict[str, Path]:
        """Make the files of every part that is left and of the teacher: the first of each, then the next of each, while time is left.

        What measuring them will take is set aside: a budget ends with figures.
        """
        parts = [self._workshop.part(TEACHER), *rank(self._parts, tolerate=self._plan.tolerate_drop)]
        files = [list_finishes(part.name, self._plan.methods, writes_itself=part.writes_itself) for part in parts]
        made: dict[str, Path] = {}
        late: list[str] = []
        aside = 0.0
        for turn, names in enumerate(zip_longest(*files)):
            for part, name in zip(parts, names, strict=True):
                price = self._price(part, rounds=QUICK_ROUNDS)
                if name is None or (turn and self._clock.left() < aside + price):
                    late += [name] if name else []
                    continue
                start = time.monotonic()
                path = self._try(name, self._workshop.finish, name)
                if path:
                    made[name] = path
                    aside += price
                self._report.step(f"candidate/{name}", made=str(path is not None), seconds_wall=time.monotonic() - start)
        self._reject(late, self._no_time())
        return made

    def _price(self, part: Part, *, rounds: int) -> float:
        """Seconds that examining and timing a file of this part will take, holdout and its like included."""
        of = self._glance if part.name == TEACHER else part
        rows = 2 * len(self._exam.labels) + HIDDEN_ROWS + INVARIANCE_ROWS * len(self._plan.batch_sizes)
        singly, together = rounds * CALLS[1] + 2 * INVARIANCE_ROWS, rounds * 32 * CALLS[32] + rows
        return (singly * of.cpu_us_b1 + together * of.cpu_us_b32) / 1e6

    def measure(self, made: dict[str, Path]) -> list[Candidate]:
        """Examine every file on the calibration rows, time them in turn, and ask the holdout once."""
        sessions, faithful = {}, {}
        for name, path in made.items():
            session = self._try(name, self._open, path)
            examined = session and self._try(name, self._examine, session)
            if not examined:
                continue
            figures, why, _ = examined
            if why and name != TEACHER:
                self._reject([name], why)
            else:
                sessions[name], faithful[name] = session, examined
        holdout = read_rows(self._data, "holdout", schema=self._teacher.schema)
        inputs = feeds(holdout)
        slow = sum(self._price(self._workshop.part(split_name(name)[0]), rounds=ROUNDS) for name in sessions)
        rounds = ROUNDS if self._clock.left() > slow else QUICK_ROUNDS
        timings = time_sessions(sessions, inputs=inputs, rounds=rounds, calls=CALLS)
        torch_said = predict(self._teacher.network, to_tensors(holdout, preprocessing=self._teacher.preprocessing))
        candidates: list[Candidate] = []
        best = 0.0
        for name, session in sessions.items():
            slower = self._slower(name, timings)
            if slower:
                self._reject([name], slower)
                continue
            said, content = answer(session, inputs), made[name].read_bytes()
            metrics = measure(holdout.labels, probabilities=said, kind=self._plan.kind)
            best = leading(metrics, kind=self._plan.kind) if name == TEACHER else best
            figures, _, found = faithful[name]
            candidate = Candidate(
                name=name, digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content),
                parameters=self._workshop.part(split_name(name)[0]).parameters, metrics=metrics, drop=self._loss(found),
                max_difference=float(np.abs(said - torch_said).max()), agreement=float(np.mean(said.argmax(1) == torch_said.argmax(1))),
                calibration=measure(self._exam.labels, probabilities=found, kind=self._plan.kind), drop_error=self._chance(found),
                holdout_drop=self._sign * (best - leading(metrics, kind=self._plan.kind)), faithfulness=figures,
                aed_per_million=timings[name].cpu_us_b1 * self._plan.aed_per_core_hour / 3600, **vars(timings[name]),
            )  # fmt: skip
            write_text(made[name].with_name("candidate.json"), to_json(candidate))
            candidates.append(candidate)
        return candidates

    def _slower(self, name: str, timings: dict[str, Timing]) -> str | None:
        """Say so where few bits cost more than the float file they were made of, beyond both ranges, one row and 32 at once."""
        part, steps = split_name(name)
        if not steps or steps[-1].partition("-")[0] not in ("int8", "static", "dynamic") or part not in timings:
            return None
        ours, float_file = timings[name], timings[part]
        if ours.cpu_us_b1_range[0] > float_file.cpu_us_b1_range[1] and ours.cpu_us_b32_range[0] > float_file.cpu_us_b32_range[1]:
            return (
                f"slower than float on this CPU: {ours.cpu_us_b1:.0f} and {ours.cpu_us_b32:.1f} us a row (1 and 32 at once), {part} "
                f"{float_file.cpu_us_b1:.0f} and {float_file.cpu_us_b32:.1f}"
            )
        return None

    # --- helpers

    def _examine(self, session: Any) -> Any:
        found = answer(session, self._inputs)
        return (*examine(session, found, self._exam, plan=self._plan), found)

    def _open(self, model: Path | bytes) -> Any:
        return open_session(model, threads=self._plan.threads)

    def _look(self, session: Any) -> Timing:
        return time_sessions({"": session}, inputs=self._inputs, rounds=3, calls=GLANCE)[""]

    def _loss(self, found: Any) -> float:
        if not np.isfinite(found).all():
            return float("inf")
        return self._sign * (
            self._best - leading(measure(self._exam.labels, probabilities=found, kind=self._plan.kind), kind=self._plan.kind)
        )

    def _chance(self, found: Any) -> float:
        return chance_of_loss(found, self._exam, kind=self._plan.kind, cases=self._cases, seed=self._teacher.plan.seed)

    def _try(self, name: str, make: Callable[..., Any], *given: Any) -> Any:
        try:
            return make(*given)
        except FAILURES as error:
            if name == TEACHER:
                raise
            self._reject([name], str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
            return None

    def _no_time(self) -> str:
        return f"there is no time for it within the budget of {self._plan.budget_seconds:g} s"

    def _reject(self, names: list[str], why: str) -> None:
        self.rejected += [Rejection(name, why) for name in names]


def rank(parts: list[Part], *, tolerate: float) -> list[Part]:
    """Order parts: front by front of loss, CPU time at one row and at 32, and size; within a front those within the tolerance by cost.

    A loss counts with one standard error, and within half the tolerance is as good as none.
    """
    left, ordered = list(parts), []
    while left:
        front = [one for one in left if not any(_dominates(other, one, tolerate) for other in left)]
        ordered += sorted(front, key=lambda one: (max(0.0, one.surely_lost - tolerate), one.cpu_us_b1 + one.cpu_us_b32, one.name))
        left = [one for one in left if one not in front]
    return ordered


def best_of_families(ranked: list[Part], *, most: int) -> list[Part]:
    """Keep the first of each family, as many as KEPT says, and of the others the first, up to `most` in all; the order stays."""
    seen: Counter[str] = Counter()
    safe = []
    for part in ranked:
        family = family_of(part.name)
        seen[family] += 1
        if seen[family] <= KEPT[family]:
            safe.append(part)
    others = [part for part in ranked if part not in safe][: max(0, most - len(safe))]
    return [part for part in ranked if part in safe or part in others]


def _dominates(one: Part, other: Part, tolerate: float) -> bool:
    ours, theirs = ((max(p.surely_lost, tolerate / 2), p.cpu_us_b1, p.cpu_us_b32, p.size_bytes) for p in (one, other))
    return ours != theirs and all(mine <= yours for mine, yours in zip(ours, theirs, strict=True))


def _with_copies(rows: Rows, *, seed: int) -> Rows:
    """Add warped copies of pictures, whose labels stay."""
    if not rows.image.shape[1] or rows.categorical or rows.numeric.shape[1] or rows.text:
        return rows
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    given = torch.from_numpy(rows.image)
    copies = [warp_images(given, COPY_WARP).numpy() for _ in range(COPIES)]
    torch.set_rng_state(state)
    images = np.concatenate([rows.image, *copies])
    return replace(rows, image=images, numeric=np.empty((len(images), 0), np.float32), labels=np.tile(rows.labels, 1 + COPIES))
