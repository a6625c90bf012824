"""Arguments are read by torchrun's own parser: what is the program's stays the program's."""

from torch.distributed.run import get_args_parser

from platform_assets.stages.training.torchrun import python_arguments


def test_the_programs_own_options_are_not_taken_by_torchrun():
    command = [*python_arguments("some.trainer", processes=3), "--run", "run.json", "--out", "folder"]
    assert command[:2] == ["-m", "torch.distributed.run"]
    read = get_args_parser().parse_args(command[2:])
    assert (read.nproc_per_node, read.module, read.training_script) == ("3", True, "some.trainer")
    assert read.training_script_args == ["--run", "run.json", "--out", "folder"]
    assert read.run_path is False


def test_one_process_needs_no_torchrun():
    assert python_arguments("some.trainer", processes=1) == ["-m", "some.trainer"]
