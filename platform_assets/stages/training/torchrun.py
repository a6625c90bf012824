"""How a program is started as one process or several of one node. Imports nothing, so that whoever starts trainers may ask it."""

from __future__ import annotations


def python_arguments(module: str, *, processes: int) -> list[str]:
    """Return what follows `python` to run a module, under torchrun where there are several processes.

    Without the `--` torchrun would read a program's own --run as short for its --run-path.
    """
    if processes == 1:
        return ["-m", module]
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "--", module]
