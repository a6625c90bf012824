"""The same three steps on this platform: `python falaj_train.py HOME`, twice; in process, SQLite, artefact store and signed audit log.

`python falaj_train.py HOME warm`: as the daemon starts a run, a fork of a process that has loaded the code; its wall and CPU seconds, as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg

from platform_assets.components.step import Outcome, Step, build_step
from platform_assets.definitions import bind_parts
from platform_assets.main_job import site
from platform_assets.specs.records import TablePin
from platform_assets.stages.placement.binding import bind
from resources.settings import CHECKOUT, Home, Settings

made = SimpleNamespace()


def load(step: Step) -> Outcome:
    from sklearn.datasets import load_digits

    made.rows, made.labels = load_digits(return_X_y=True)
    return Outcome(TablePin("bench/rows", 0, len(made.rows), "rows"), "rows")


def train(step: Step) -> Outcome:
    import pickle

    from sklearn.linear_model import LogisticRegression

    made.model = LogisticRegression(max_iter=50).fit(made.rows, made.labels)
    folder = step.parts.settings.home.root / "scratch"
    folder.mkdir(exist_ok=True)
    (folder / "model.pkl").write_bytes(pickle.dumps(made.model))
    made.digest = step.parts.artefacts.put(folder)
    return Outcome(TablePin("bench/model", 0, 0, made.digest), made.digest)


def register(step: Step) -> Outcome:
    accuracy = float(made.model.score(made.rows, made.labels))
    step.parts.audit.append("release", subject="model/digits", actor="bench", detail={"digest": made.digest, "accuracy": accuracy})
    return Outcome(TablePin("bench/registered", 0, 0, made.digest), made.digest, {"accuracy": accuracy})


def main(home: Path, *, warm: bool) -> None:
    settings = Settings(
        home=Home(home), environment="laptop", defs_root=CHECKOUT / "platform_assets" / "defs", webhook_url=None, serve_port=0, web_port=0
    )
    site.prepare(settings)
    parts = bind_parts(settings)
    name, profile = parts.catalogue.profile_of("digits", "release")
    keys = [["model", "digits", state] for state in ("bench_load", "bench_train", "bench_register")]
    assets = [
        build_step(key, work, deps=[keys[place - 1]] if place else [], group="bench", description="A step.", owner="team:bench", kinds=set(),
                   code_version="1", binding=bind(profile, name=name, tenant="t", model="digits"))
        for place, (key, work) in enumerate(zip(keys, (load, train, register), strict=True))
    ]  # fmt: skip
    job = dg.Definitions(
        assets=assets, jobs=[dg.define_asset_job("bench", executor_def=dg.in_process_executor)], resources={"parts": parts}
    ).resolve_job_def("bench")  # fmt: skip

    def run() -> None:
        with dg.DagsterInstance.from_config(str(settings.home.instance)) as instance:
            print(json.dumps({"success": job.execute_in_process(instance=instance, raise_on_error=True).success}))

    if not warm:
        run()
        return
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        run()
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    print(json.dumps({"status": status, "wall_seconds": time.perf_counter() - began, "cpu_seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), warm=sys.argv[2:] == ["warm"])
