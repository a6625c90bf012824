"""A trainer that learns nothing but keeps the trainer's promises: what its data folder's behave.json says of each start happens."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from platform_assets.stages.training.heartbeat import start_heartbeat

CODES = {"finished": 0, "failed": 1, "out_of_memory": 70, "diverged": 71, "preempted": 75}


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("data", "out", "spec", "run", "lease"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--cache-bytes", type=int)
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    alone = (out / "alone").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (out / "two trainers at once").touch()
        return 1
    if (out / "result.json").exists():
        return 0
    with (out / "starts.jsonl").open("a") as file:
        how = {name: json.loads(getattr(given, name).read_text()) for name in ("spec", "run", "lease") if getattr(given, name)}
        file.write(json.dumps({"pid": os.getpid(), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"), **how}) + "\n")
    behaviours = json.loads((given.data / "behave.json").read_text())
    starts = len((out / "starts.jsonl").read_text().splitlines())
    heartbeat = start_heartbeat(given.lease) if given.lease else None
    with open_dagster_pipes() as pipes:
        code = learn(out, behaviours[min(starts, len(behaviours)) - 1], pipes)
    if heartbeat is not None:
        heartbeat.stop()
    return code


def learn(out: Path, behave: dict, pipes) -> int:
    state = out / "state.json"
    restored = json.loads(state.read_text())["step"] if state.exists() else None
    reached = int((out / "reached").read_text()) if (out / "reached").exists() else 0
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))

    def end(outcome: str, step: int) -> int:
        lost = max(0, reached - (restored or 0))
        record = {"outcome": outcome, "code": CODES[outcome], "sentence": f"It was {outcome}.", "step": step, "seconds": 1.0}
        text = json.dumps({**record, "restored_from": restored, "lost_steps": lost})
        (out / ".exit.json").write_text(text)
        (out / ".exit.json").replace(out / "exit.json")
        return CODES[outcome]

    for step in range((restored or 0) + 1, behave.get("steps", 30) + 1):
        time.sleep(behave.get("pause", 0.02))
        (out / ".reached").write_text(str(step))
        (out / ".reached").replace(out / "reached")
        if step % 5 == 0 or stopped:
            (out / ".state.json").write_text(json.dumps({"step": step}))
            (out / ".state.json").replace(state)
        with (out / "progress.jsonl").open("a") as file:
            file.write(json.dumps({"step": "train/epoch", "seconds": 0.0, "epoch": step, "epochs": 30}) + "\n")
        pipes.log.info("step %d", step)
        if stopped:
            return end("preempted", step)
        if step == behave.get("kill_at"):
            os.kill(os.getpid(), behave.get("signal", signal.SIGKILL))
        if step == behave.get("stop_at"):
            return end(behave["outcome"], step)
        if step == behave.get("raise_at"):
            raise RuntimeError("a fault nobody foresaw")
    (out / "result.json").write_text('{"seconds": 1.0}')
    return end("finished", behave.get("steps", 30))


if __name__ == "__main__":
    sys.exit(main())
