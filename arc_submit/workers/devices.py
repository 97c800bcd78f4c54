"""Which device a worker works on, and the environment variables of its process. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Sequence


def worker_environment(threads: int, device: str) -> dict[str, str]:
    """Variables for a process that works on a device: its threads, no hub, and of several GPUs its own alone.

    A process sees its GPU as the first and only one (`seen_device`). vllm takes the first that it sees, whatever device is meant, and
    what a process sees is settled at its first look at CUDA: it cannot be told later.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return environment
    number, visible = int(index) if index.isdecimal() else 0, os.environ.get("CUDA_VISIBLE_DEVICES")
    # Of a process that sees only some, those; one too many is none, which the worker says.
    own = str(number) if visible is None else dict(enumerate(visible.split(","))).get(number, "")
    return environment | {"CUDA_VISIBLE_DEVICES": own}


def worker_device(devices: Sequence[str], number: int) -> str:
    """The device of the worker of a number: each in turn."""
    return devices[number % len(devices)]


def seen_device(device: str) -> str:
    """A device as the process sees it that has `worker_environment`."""
    return "cuda:0" if device.startswith("cuda") else device
