"""Double of nvidia-ml-py's module: the real names, its error tree, and a machine told by the file that FAKE_NVML names.

The file's JSON: {"init": error or null, "devices": [{"uuid", "busy", "used", "total", "milliwatts", "celsius"}]}. A figure may be
{"error": "NVMLError_NotSupported"}, a list is taken one value a call (the last stays), "hang" never answers.
"""

# ruff: noqa: N801, N802, N818 - the names are NVIDIA's

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_InvalidArgument(NVMLError):
    pass


_MACHINE = json.loads(Path(os.environ["FAKE_NVML"]).read_text())
_CALLS: dict[tuple[str, str], int] = {}


def _figure(handle, name):
    value = handle[name]
    if isinstance(value, list):
        call = _CALLS[handle["uuid"], name] = _CALLS.get((handle["uuid"], name), -1) + 1
        value = value[min(call, len(value) - 1)]
    if value == "hang":
        time.sleep(3600)
    if isinstance(value, dict):
        raise globals()[value["error"]]
    return value


def nvmlInit():
    if _MACHINE.get("init"):
        raise globals()[_MACHINE["init"]]


def nvmlDeviceGetCount():
    return len(_MACHINE["devices"])


def nvmlDeviceGetHandleByIndex(index):
    if not 0 <= index < len(_MACHINE["devices"]):
        raise NVMLError_InvalidArgument
    return _MACHINE["devices"][index]


def nvmlDeviceGetHandleByUUID(uuid):
    for device in _MACHINE["devices"]:
        if uuid in (device["uuid"], *device.get("slices", ())):
            return device
    raise NVMLError_InvalidArgument


def nvmlDeviceGetUUID(handle):
    return handle["uuid"]


def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=_figure(handle, "busy"), memory=0)


def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(used=_figure(handle, "used"), total=handle["total"], free=0)


def nvmlDeviceGetPowerUsage(handle):
    return _figure(handle, "milliwatts")


def nvmlDeviceGetTemperature(handle, sensor):
    assert sensor == NVML_TEMPERATURE_GPU
    return _figure(handle, "celsius")
