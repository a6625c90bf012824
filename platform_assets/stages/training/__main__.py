"""The trainer's door: `python -m platform_assets.stages.training --data DIR --spec spec.json --out DIR`, alone or under torchrun.

spec.json holds a TrainingPlan (the fields of specs.model.LearningSpec and the target's `kind`), run.json a RunPlan. Started again with
the same --out it goes on from the newest whole checkpoint; how it ended stands in exit.json (`exits`). It does not end with its parent.

Under torchrun: `python -m torch.distributed.run ... -m -- platform_assets.stages.training --data ...`; without the `--` torchrun would
take --run for its own --run-path. On several nodes --out is a folder that all of them see.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from platform_assets.errors import TrainingError
from platform_assets.logs import FORMS, TEXT, bound, start_logging
from platform_assets.networks.companions import Figures, Place, open_progress, place_here, sample_machine
from platform_assets.networks.plans import RunPlan, TrainingPlan
from platform_assets.networks.program import read_file
from platform_assets.networks.stopping import Stop
from platform_assets.networks.trail import Trail
from platform_assets.specs.record_json import T, read_record
from platform_assets.stages.training.exits import CODES, Ending, read_exit
from platform_assets.stages.training.heartbeat import Heartbeat, read_lease
from platform_assets.tracing import span, start_tracing

FINAL = ("diverged", "out_of_memory")  # torchrun's own restart would only meet it again; a start of its own may have a larger profile

CACHE_BYTES = 64 << 30


def main(arguments: list[str] | None = None) -> int:
    """Train as told; the exit status is that of `exits.CODES`, with a sentence on stderr unless all went well."""
    parser = argparse.ArgumentParser(prog="python -m platform_assets.stages.training", description="Train one model from one training set.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training set")
    parser.add_argument("--spec", type=Path, required=True, help="JSON of the training plan")
    parser.add_argument("--run", type=Path, help="JSON of how to run: strategy, checkpoints (defaults when left out)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; the state that stands there already is used")
    parser.add_argument("--cache", type=Path, help="folder of this node that encoded shards are kept in (default: within --out)")
    parser.add_argument("--cache-bytes", type=int, default=CACHE_BYTES, help="what that folder may hold (default 64 GiB)")
    parser.add_argument("--warm-start", type=Path, help="folder of an earlier training, to begin with its weights")
    parser.add_argument("--lease", type=Path, help="JSON of a lease on GPUs to keep alive meanwhile")
    parser.add_argument("--log", choices=FORMS, default=TEXT, help="how standard error is written: sentences, or a line of JSON an event")
    parser.add_argument("--log-as", default="/", help="RUN/MODEL that such a line speaks of")
    parser.add_argument("--traces", help="receiver of traces, OTLP over HTTP")
    parser.add_argument("--traceparent", help="where this training belongs in a trace")
    given = parser.parse_args(arguments)
    run, _, model = given.log_as.partition("/")
    start_logging("trainer", given.log)
    place = place_here()
    start_tracing("trainer", given.traces if place.rank == 0 else None)
    with bound(run=run, model=model), span("training process", parent=given.traceparent, run=run or None, model=model or None):
        return _main(given, place)


def _main(given: argparse.Namespace, place: Place) -> int:
    before = read_exit(given.out)
    if before is not None and (before.outcome == "finished" or (place.restarts and before.outcome in FINAL)):
        return before.code
    if before is None and (given.out / "result.json").is_file():  # killed between its last two files
        with Ending(given.out, trail=Trail(), rank=place.rank):
            return CODES["finished"]
    trail = Trail()
    with Ending(given.out, trail=trail, rank=place.rank) as ending:
        stop = Stop(at_last=ending.give_up)
        stop.listen()
        _run(given, stop=stop, trail=trail, keeps_lease=place.rank == 0)
    return ending.code


def _run(given: argparse.Namespace, *, stop: Stop, trail: Trail, keeps_lease: bool) -> None:
    plan = _read(TrainingPlan, given.spec, "training plan")
    run = _read(RunPlan, given.run, "run plan") if given.run is not None else RunPlan()
    figures = Figures()
    with ExitStack() as around:
        if given.lease is not None and keeps_lease:
            heartbeat = Heartbeat(read_lease(given.lease), on_lost=lambda: stop.ask(f"stopped: {heartbeat.sentence}"))
            heartbeat.start()  # before torch is imported: a lease lasts 20 s, an import on a cold disk may take longer
            around.callback(heartbeat.stop)
        progress = around.enter_context(open_progress(given.out))
        around.enter_context(sample_machine(given.out, every_seconds=run.sample_seconds, figures=figures))
        from platform_assets.stages.training.work import Journey, train

        journey = Journey(
            data=given.data, out=given.out, warm=given.warm_start, cache=given.cache or given.out / f"cache-{place_here().node}",
            cache_bytes=given.cache_bytes, report=progress, stop=stop, trail=trail, figures=figures,
        )  # fmt: skip
        result = train(plan, run=run, journey=journey)
        if result is not None:
            progress.materialised({"parameters": result.parameters, "seconds": result.seconds, **result.holdout})


def _read(kind: type[T], path: Path, name: str) -> T:
    try:
        return read_record(kind, read_file(path))
    except ValueError as error:
        raise TrainingError(f"{path} is no {name}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
