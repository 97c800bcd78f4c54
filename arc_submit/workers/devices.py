"""The device of each worker, the environment variables of its process, and the GPUs that are there. Does not know what a worker does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# In a process of its own: a driver that hangs must not hang its caller, and torch takes seconds and memory to load.
_COUNT_GPUS = "import torch; print(torch.cuda.device_count(), torch.__version__)"
_SECONDS_TO_COUNT = 120.0


def worker_environment(threads: int, device: str) -> dict[str, str]:
    """Return environment variables for a process on a device: its threads, no model hub, and only its own GPU.

    The process sees its GPU as the first and only one (`visible_device`). vllm always takes the first GPU that it sees, and CUDA reads the
    variable once per process.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return environment
    gpu, visible = int(index) if index.isdecimal() else 0, os.environ.get("CUDA_VISIBLE_DEVICES")
    # The index counts within the GPUs that this process sees. An index past their end yields no GPU; the worker reports that.
    own = str(gpu) if visible is None else dict(enumerate(visible.split(","))).get(gpu, "")
    # Every sample has another length. Segments of fixed sizes then leave memory that is free and cannot be used.
    allocator = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return environment | {"CUDA_VISIBLE_DEVICES": own, "PYTORCH_CUDA_ALLOC_CONF": allocator}


def worker_device(devices: Sequence[str], worker_id: int) -> str:
    """Return the device of a worker: workers take the devices in turn."""
    return devices[worker_id % len(devices)]


def visible_device(device: str) -> str:
    """Return the name of a device inside a process with its `worker_environment`."""
    return "cuda:0" if device.startswith("cuda") else device


def count_gpus(timeout: float = _SECONDS_TO_COUNT) -> tuple[int, str]:
    """Return the number of GPUs that torch sees in a process with this one's environment, and the evidence for it."""
    command = [sys.executable, "-c", _COUNT_GPUS]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return 0, f"the driver has not answered in {timeout:.0f} s"
    if process.returncode != 0:
        return 0, (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    count, version = process.stdout.split()
    return int(count), f"torch {version} sees {count} GPU{'' if count == '1' else 's'}"
