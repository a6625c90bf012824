"""A process that has loaded the code location and forks one child for each run: `python -m resources.dagster_instance.warm_process MODULE`.

It reads the runs to start from its standard input, a line of JSON each, and answers with a line each, after a first one that says it is
ready. It ends with its starter, whose end closes the input; runs that are under way go on. It never runs anything itself, opens no
instance and starts no thread of Python's, so every child begins from the same clean state.

A child takes the definitions over that its parent has loaded: with 200 models that is four CPU seconds a run. They are as the declarations
stand, because the starter replaces this process when code or declarations have changed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING

from dagster import DagsterInstance
from dagster._core.code_pointer import CodePointer, ModuleCodePointer
from dagster._core.definitions import reconstruct
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._grpc.impl import core_execute_run
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from resources.dagster_instance.traces import running

if TYPE_CHECKING:
    from dagster import RepositoryDefinition

# What runs that refresh or train import and nobody needs to load: pure drawing, no threads and no files. Monitoring draws without it.
ALSO = ("matplotlib.figure", "matplotlib.backends.backend_agg")


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what code prints while it loads is no answer
    _keep(sys.argv[1], ReconstructableRepository.for_module(sys.argv[1], "defs").get_definition())
    for name in ALSO:
        import_module(name)
    gc.collect()
    gc.freeze()  # a child's collector does not walk, and so copy, what all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are nobody's to wait for
    print(json.dumps({"ready": os.getpid()}), file=answers)
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            answers.close()
            _become_a_run(json.loads(line))
        print(json.dumps({"pid": child}), file=answers)


def _keep(module: str, loaded: RepositoryDefinition) -> None:
    """Have Dagster take these definitions wherever it would load the module's anew; other code is loaded as ever.

    A run of a workspace says with which data its location was loaded. Of ours that is the location's name and nothing else, and no
    definition here asks for it.
    """
    load = reconstruct.reconstruct_repository_def_from_pointer

    def take(pointer: CodePointer, repository_load_data: RepositoryLoadData | None = None) -> RepositoryDefinition:
        ours = isinstance(pointer, ModuleCodePointer) and (pointer.module, pointer.fn_name) == (module, "defs")
        given = (repository_load_data or RepositoryLoadData())._replace(code_location_name=None)
        same = given == (loaded.repository_load_data or RepositoryLoadData())
        return loaded if ours and same else load(pointer, repository_load_data)

    reconstruct.reconstruct_repository_def_from_pointer = take


def _become_a_run(request: dict[str, str]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        if "numpy" in sys.modules:  # random seeds itself after a fork, numpy does not
            sys.modules["numpy"].random.seed()
        with capture_interrupts():
            _execute(request["run_id"], deserialize_value(request["instance"], InstanceRef))
        code = 0
    finally:
        if sys.exc_info()[0] is not None:  # nobody is left to raise it to
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the parent's exit handlers are not the child's to run


def _execute(run_id: str, instance_ref: InstanceRef) -> None:
    with DagsterInstance.from_ref(instance_ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.job_code_origin is None:
            raise LookupError(f"there is no run {run_id} in the instance, or none with an origin")
        pid = os.getpid()
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
        with running(run):
            for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, inject_env_vars=False):
                pass


if __name__ == "__main__":
    main()
