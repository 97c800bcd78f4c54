"""The device of each worker, the environment variables of its process, and the GPUs that are there. Does not know what a worker does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# In a process of its own: a driver that hangs must not hang its caller, and torch takes seconds and memory to load.
_LIST_GPUS = """
import json, torch
gpus = []
for number in range(torch.cuda.device_count()):
    try:
        gpu = torch.cuda.get_device_properties(number)
        gpus.append([gpu.name, gpu.total_memory, gpu.major, gpu.minor])
    except Exception as error:
        gpus.append([f"{type(error).__name__}: {error}", 0, 0, 0])
print(json.dumps([torch.__version__, torch.cuda.get_arch_list(), gpus]))
"""
_SECONDS_TO_LIST = 120.0
# What a driver leaves on a machine with a GPU: NVIDIA's, its kernel module's under Windows, AMD's.
_DRIVERS = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it.

    Attributes:
        name: its maker's, or why its properties cannot be read.
        gib: memory that a program sees; 0 where it cannot be read.
        capability: major and minor number of its architecture, such as (7, 5).
        supported: torch has code for the architecture.
    """

    name: str
    gib: float
    capability: tuple[int, int] = (8, 0)
    supported: bool = True


def worker_environment(threads: int, *devices: str) -> dict[str, str]:
    """Return environment variables for a process on a device, or on several: its threads, no model hub, and only its own GPUs.

    The process sees its GPUs as the first and only ones (`visible_device`). vllm always takes the first GPUs that it sees, and CUDA reads
    the variable once per process.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    gpus = [device for device in devices if device.partition(":")[0] == "cuda"]
    if not gpus:
        return environment
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(_own_number, gpus))
    if len(gpus) > 1:
        return environment  # vllm's processes of several cards cannot share memory of expandable segments with each other
    # Every sample has another length. Segments of fixed sizes then leave memory that is free and cannot be used.
    allocator = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return environment | {"PYTORCH_CUDA_ALLOC_CONF": allocator}


def _own_number(device: str) -> str:
    """The number of a GPU for a child process; it counts within the GPUs that this process sees.

    An index past their end yields no GPU; the worker reports that.
    """
    index, visible = device.partition(":")[2], os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = int(index) if index.isdecimal() else 0
    return str(gpu) if visible is None else dict(enumerate(visible.split(","))).get(gpu, "")


def worker_device(devices: Sequence[str], worker_id: int) -> str:
    """Return the device of a worker: workers take the devices in turn."""
    return devices[worker_id % len(devices)]


def visible_device(device: str) -> str:
    """Return the name of a device inside a process with its `worker_environment`."""
    return "cuda:0" if device.startswith("cuda") else device


def find_gpus(timeout: float = _SECONDS_TO_LIST) -> tuple[list[Gpu], str]:
    """Return the GPUs that torch sees in a process with this one's environment, in the order of their numbers, and the evidence."""
    command = [sys.executable, "-c", _LIST_GPUS]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return [], f"the driver has not answered in {timeout:.0f} s"
    if process.returncode != 0:
        return [], (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    version, architectures, found = json.loads(process.stdout)
    gpus = [Gpu(name, memory / 2**30, (major, minor), _has_code(architectures, major, minor)) for name, memory, major, minor in found]
    return gpus, f"torch {version} sees {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}"


def has_gpu_driver() -> bool:
    """Whether this machine has the driver of a GPU: known at once, where `find_gpus` takes seconds."""
    return any(path.exists() for path in _DRIVERS)


def _has_code(architectures: Sequence[str], major: int, minor: int) -> bool:
    """Whether one of torch's architectures, such as sm_75 or compute_120, runs on a GPU of a capability; True where torch names none."""
    versions = [(kind, *divmod(int(number.rstrip("abcdef")), 10)) for kind, _, number in (one.partition("_") for one in architectures)]
    return not versions or any(
        (kind == "sm" and one == major and other <= minor) or (kind == "compute" and (one, other) <= (major, minor))
        for kind, one, other in versions
    )
