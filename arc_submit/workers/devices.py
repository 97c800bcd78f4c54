"""The device of each worker, and the environment variables of its process. Does not know what a worker does."""

from __future__ import annotations

import os
from collections.abc import Sequence


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
    return environment | {"CUDA_VISIBLE_DEVICES": own}


def worker_device(devices: Sequence[str], worker_id: int) -> str:
    """Return the device of a worker: workers take the devices in turn."""
    return devices[worker_id % len(devices)]


def visible_device(device: str) -> str:
    """Return the name of a device inside a process with its `worker_environment`."""
    return "cuda:0" if device.startswith("cuda") else device
