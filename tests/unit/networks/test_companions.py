"""A training program with and without its companions, each in a process of its own: a module double stands for NVML."""

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).resolve().parents[3]
DOUBLES = Path(__file__).parent / "doubles"
MIB = 2**20

PROGRAM = """
import sys, time
for name in {blocked!r}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError, as where it is not installed
from pathlib import Path
from platform_assets.networks.companions import Figures, open_progress, sample_machine
figures, out = Figures(), Path({out!r})
with open_progress(out) as progress, sample_machine(out, every_seconds={every}, figures=figures):
    {work}
assert "torch" not in sys.modules
"""
GOOD = {"uuid": "GPU-aaaa-1", "busy": 93, "used": 5 * MIB, "total": 80 * MIB, "milliwatts": 412_500, "celsius": 61}


def device(**other):
    return {**GOOD, **other}


def run(out, *, devices=None, init=None, blocked=(), every=0.05, work="time.sleep(0.3)", **environment):
    """Run a program on a machine with these devices (None: no pynvml); return its telemetry lines by file."""
    out.mkdir(exist_ok=True)
    machine = out.parent / "machine.json"
    machine.write_text(json.dumps({"init": init, "devices": devices or []}))
    blocked = [*blocked, *(["pynvml"] if devices is None and init is None else [])]
    code = PROGRAM.format(blocked=list(blocked), out=str(out), every=every, work=work)
    inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    path = f"{DOUBLES}{os.pathsep}{ROOT}"
    given = {**inherited, "PYTHONPATH": path, "FAKE_NVML": str(machine), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in sorted(out.glob("telemetry*.jsonl"))}


def newest(out, **given):
    return run(out, **given)["telemetry.jsonl"][-1]


def test_each_gpu_is_sampled_with_all_its_figures(tmp_path):
    lines = run(tmp_path / "out", devices=[device()])["telemetry.jsonl"]
    assert len(lines) >= 3
    assert lines[-1]["gpus"] == [
        {
            "index": 0,
            "utilisation": 0.93,
            "memory_bytes": 5 * MIB,
            "memory_total_bytes": 80 * MIB,
            "power_watts": 412.5,
            "temperature_c": 61,
        }
    ]


@pytest.mark.parametrize("init", ["NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"])
def test_without_a_driver_the_rest_is_sampled_all_the_same(tmp_path, init):
    line = newest(tmp_path / "out", devices=[device()], init=init)
    assert line["gpus"] == []
    assert line["rss_bytes"] > 5 * MIB


def test_a_call_that_a_gpu_does_not_support_leaves_its_other_figures(tmp_path):
    line = newest(tmp_path / "out", devices=[device(milliwatts={"error": "NVMLError_NotSupported"})])
    assert line["gpus"][0] == {**line["gpus"][0], "utilisation": 0.93, "power_watts": None, "temperature_c": 61}


def test_a_gpu_that_is_lost_and_comes_back_is_unknown_meanwhile(tmp_path):
    lost = {"error": "NVMLError_GpuIsLost"}
    gone = device(uuid="GPU-bbbb-2", busy=[50, lost, lost, 70], used=lost, milliwatts=lost, celsius=lost)
    lines = run(tmp_path / "out", devices=[device(), gone])["telemetry.jsonl"]
    assert [line["gpus"][1]["utilisation"] for line in lines[:4]] == [0.5, None, None, 0.7]
    assert all(line["gpus"][0]["utilisation"] == 0.93 and line["gpus"][1]["memory_total_bytes"] is None for line in lines)


def test_a_driver_that_never_answers_does_not_hold_up_the_end(tmp_path):
    start = time.monotonic()
    lines = run(tmp_path / "out", devices=[device(busy="hang")], work="progress.step('done')")
    assert lines == {}
    assert time.monotonic() - start < 10
    assert json.loads((tmp_path / "out" / "progress.jsonl").read_text())["step"] == "done"


FOUR = [device(uuid=f"GPU-{letter * 4}-{place}", busy=10 * place, slices=[f"MIG-{letter}"]) for place, letter in enumerate("abcd")]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [0, 1, 2, 3]), ("2,0", [2, 0]), ("", []), ("-1", []), ("1,-1,2", [1]), ("3,9,0", [3]), ("GPU-cc,GPU-aaaa-0", [2, 0]),
        ("GPU-zz", []), ("GPU-", []), ("nonsense", []),
    ],
)  # fmt: skip
def test_only_the_devices_that_cuda_may_use_are_sampled(tmp_path, visible, seen):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    line = newest(tmp_path / "out", devices=FOUR, work="pass", **environment)
    assert [(gpu["index"], gpu["utilisation"]) for gpu in line["gpus"]] == [(index, index / 10) for index in seen]


def test_a_slice_of_a_gpu_is_found_by_its_name(tmp_path):
    line = newest(tmp_path / "out", devices=FOUR, work="pass", CUDA_VISIBLE_DEVICES="MIG-d")
    assert [(gpu["index"], gpu["utilisation"]) for gpu in line["gpus"]] == [(0, 0.3)]


def test_processes_of_a_node_share_its_gpus_out_and_write_files_of_their_own(tmp_path):
    for local in range(2):
        torchrun = {"RANK": str(4 + local), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "2"}
        files = run(tmp_path / "out", devices=FOUR, work="progress.step('epoch')", CUDA_VISIBLE_DEVICES="0,1,3", **torchrun)
    assert {name: (lines[-1]["rank"], lines[-1]["node"], [gpu["index"] for gpu in lines[-1]["gpus"]]) for name, lines in files.items()} == {
        "telemetry-00004.jsonl": (4, 2, [0, 3]), "telemetry-00005.jsonl": (5, 2, [1]),
    }  # fmt: skip
    assert not (tmp_path / "out" / "progress.jsonl").exists()  # rank 0 alone speaks


ALLOCATE = "held = bytearray({size}); end = time.monotonic() + 0.6\n    while time.monotonic() < end: sum(range(1000))"


@pytest.mark.parametrize("blocked", [(), ("psutil",)], ids=["psutil", "proc"])
def test_cpu_and_memory_are_those_of_the_process_with_and_without_psutil(tmp_path, blocked):
    lines = run(tmp_path / "out", blocked=blocked, every=0.2, work=ALLOCATE.format(size=200 * MIB))["telemetry.jsonl"]
    assert all(200 * MIB < line["private_bytes"] <= line["rss_bytes"] < 400 * MIB for line in lines)
    busy = [line["cpu_percent"] for line in lines[:-1]]
    assert max(busy) > 30
    assert all(value < 130 for value in busy)  # one thread works: one core, and what a busy machine adds in rounding


def test_mapped_files_do_not_count_as_private_memory(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(150 * MIB))
    work = f"import mmap; file = open({str(big)!r}, 'rb'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(held[::4096]); time.sleep(0.2)"
    line = newest(tmp_path / "out", work=work)
    assert line["rss_bytes"] > 150 * MIB
    assert line["private_bytes"] < 100 * MIB


def test_throughput_and_data_wait_are_what_the_loop_says(tmp_path):
    loop = "for _ in range(20): time.sleep(0.05); figures.samples += 100; figures.waited_seconds += 0.01; figures.step += 1; figures.loss = 0.5"
    lines = run(tmp_path / "out", every=0.25, work=loop)["telemetry.jsonl"]
    assert (lines[-1]["step"], lines[-1]["loss"]) == (20, 0.5)
    whole = [line for line in lines[:-1] if line["samples_per_second"]]
    assert all(200 < line["samples_per_second"] <= 2400 and 0.02 < line["data_wait"] < 0.24 for line in whole)
    early = run(tmp_path / "other", work="time.sleep(0.2)")["telemetry.jsonl"]
    assert all(line["samples_per_second"] is None and line["data_wait"] is None for line in early)


def test_a_training_shorter_than_the_rhythm_leaves_a_sample(tmp_path):
    assert len(run(tmp_path / "out", every=3600, work="figures.step = 3")["telemetry.jsonl"]) == 1


def test_a_disk_that_takes_nothing_costs_the_lines_and_not_the_training(tmp_path):
    full = "import os; os.symlink('/dev/full', out / 'progress.jsonl'); progress.step('epoch'); time.sleep(0.2); progress.step('done')"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "telemetry.jsonl").symlink_to("/dev/full")
    code = PROGRAM.format(blocked=["pynvml"], out=str(tmp_path / "out"), every=0.05, work=full)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sampling_costs_less_than_a_fifth_of_a_percent_of_a_core(tmp_path):
    rounds = "import resource; before = time.process_time(); time.sleep(1.5); progress.step('cost', cpu=time.process_time() - before)"
    lines = run(tmp_path / "out", devices=[device(uuid=f"GPU-{place}") for place in range(8)], every=0.01, work=rounds)["telemetry.jsonl"]
    cpu = json.loads((tmp_path / "out" / "progress.jsonl").read_text())["cpu"]
    assert len(lines) > 50
    assert cpu / len(lines) / 2.0 < 0.002, "at the default rhythm of a sample every two seconds"


def test_the_double_speaks_as_the_real_module_does():
    import pynvml

    double = ast.parse((DOUBLES / "pynvml.py").read_text())
    names = [node.name for node in double.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert len(names) > 12
    for name in names:
        real = getattr(pynvml, name, None) or pynvml.nvmlExceptionClass(getattr(pynvml, name.replace("NVMLError_", "NVML_ERROR_")))
        assert inspect.isfunction(real) or issubclass(real, pynvml.NVMLError), name
    assert pynvml.NVML_TEMPERATURE_GPU == 0


def pipes_of(tmp_path, context):
    from dagster_pipes import encode_param

    (tmp_path / "context.json").write_text(json.dumps(context))
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(tmp_path / "context.json")}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages.jsonl")}),
    }


CONTEXT = {
    "asset_keys": ["model/m/trained"], "code_version_by_asset_key": {}, "provenance_by_asset_key": {}, "partition_key": None,
    "partition_key_range": None, "partition_time_window": None, "run_id": "r", "job_name": "j", "retry_number": 0, "extras": {},
}  # fmt: skip
SPEAK = "progress.step('train/epoch', epoch=1.0, loss=0.25); progress.materialised({'parameters': 7})"


def test_steps_reach_dagster_through_pipes_files(tmp_path):
    run(tmp_path / "out", work=SPEAK, **pipes_of(tmp_path, CONTEXT))
    messages = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    assert [message["method"] for message in messages] == ["opened", "log", "report_custom_message", "closed"]
    assert messages[1]["params"]["message"] == "train/epoch: epoch 1.0000, loss 0.2500"
    assert messages[2]["params"]["payload"] == {"result": {"parameters": 7}}


def test_without_dagster_pipes_the_file_says_it_all(tmp_path):
    run(tmp_path / "out", blocked=["dagster_pipes"], work=SPEAK, **pipes_of(tmp_path, CONTEXT))
    assert not (tmp_path / "messages.jsonl").exists()
    line = json.loads((tmp_path / "out" / "progress.jsonl").read_text())
    assert (line["step"], line["epoch"], line["loss"]) == ("train/epoch", 1.0, 0.25)


@pytest.mark.parametrize("gone", ["from the start", "meanwhile"])
def test_a_training_outlives_the_files_of_the_dagster_that_started_it(tmp_path, gone):
    (tmp_path / "pipes").mkdir()
    environment = pipes_of(tmp_path / "pipes", CONTEXT)
    remove = f"import shutil; shutil.rmtree({str(tmp_path / 'pipes')!r}); "
    if gone == "from the start":
        (tmp_path / "pipes" / "context.json").unlink()
        remove = ""
    run(tmp_path / "out", work=f"{remove}progress.step('one'); progress.step('two'); progress.materialised({{}})", **environment)
    assert len((tmp_path / "out" / "progress.jsonl").read_text().splitlines()) == 2


def test_an_error_is_told_to_dagster_and_still_ends_the_program(tmp_path):
    code = PROGRAM.format(blocked=["pynvml"], out=str(tmp_path / "out"), every=1, work="raise ValueError('no such column')")
    environment = {**os.environ, **pipes_of(tmp_path, CONTEXT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last = json.loads((tmp_path / "messages.jsonl").read_text().splitlines()[-1])
    assert (last["method"], last["params"]["exception"]["message"].strip()) == ("closed", "ValueError: no such column")


def test_dagsters_own_file_reader_reads_what_the_program_writes(tmp_path):
    code = PROGRAM.format(blocked=["pynvml"], out=str(tmp_path / "out"), every=1, work=SPEAK)

    @dg.asset
    def trained(context: dg.AssetExecutionContext):
        client = dg.PipesSubprocessClient(message_reader=dg.PipesFileMessageReader(str(tmp_path / "messages.jsonl")), cwd=str(ROOT))
        done = client.run(context=context, command=[sys.executable, "-c", code])
        assert list(done.get_custom_messages()) == [{"result": {"parameters": 7}}]
        return done.get_materialize_result()

    assert dg.materialize([trained], instance=dg.DagsterInstance.ephemeral()).success
