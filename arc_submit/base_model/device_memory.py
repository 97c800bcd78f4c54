"""The memory of a GPU that other processes hold: how much is there for this one, and waiting until it is.

A worker that was killed a moment ago gives its memory back seconds later, and another program may hold some for good. Does not know what
the memory is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from arc_submit.base_model.memory import GIB, usable_bytes
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory

WAIT_SECONDS = 30.0
_POLL_SECONDS = 1.0
_Loaded = TypeVar("_Loaded")


class DeviceFullError(RuntimeError):
    """A GPU whose memory other processes hold. It is no refusal: a later start may find it free."""


def available_bytes(device: torch.device) -> int:
    """Bytes of a GPU that are free, or held by this process."""
    free: int = torch.cuda.mem_get_info(device)[0]
    return free + torch.cuda.memory_reserved(device)


def planned_bytes(device: torch.device, workers: int = 1) -> int:
    """Bytes of a GPU that the tensors of one of several workers may take where no other program uses it."""
    return usable_bytes(torch.cuda.get_device_properties(device).total_memory / GIB / workers)


def wait_for_memory(device: torch.device, wanted: int, needed: int, on_poll: Callable[[], None] = lambda: None) -> int:
    """Wait until a GPU has that much memory for this process, for a limited time; returns the bytes that it has then.

    Args:
        wanted: bytes to wait for; after the time less must do.
        needed: bytes without which nothing can be done.
        on_poll: called about every second.

    Raises:
        DeviceFullError: where there is less than what is needed.
    """
    started = time.monotonic()
    first = available = available_bytes(device)
    while available < wanted and time.monotonic() - started < WAIT_SECONDS:
        time.sleep(_POLL_SECONDS)
        on_poll()
        available = available_bytes(device)
    if first < wanted:
        print(
            f"{device}: {first / GIB:.2f} GiB were available and {wanted / GIB:.2f} are wanted, other processes hold memory; "
            f"{available / GIB:.2f} GiB are available after {time.monotonic() - started:.0f} s",
            flush=True,
        )
    if available < needed:
        raise DeviceFullError(
            f"{device}: {available / GIB:.2f} GiB are available and the model takes {needed / GIB:.2f}; other processes hold the memory, "
            "end them (nvidia-smi names them)"
        )
    return available


def memory_came_back(device: torch.device, workers: int, on_poll: Callable[[], None]) -> bool:
    """Whether other processes held memory of a GPU that this worker plans with, and have given it back after a wait; never on a CPU."""
    if device.type != "cuda":
        return False
    wanted = planned_bytes(device, workers)
    return available_bytes(device) < wanted <= wait_for_memory(device, wanted, 0, on_poll)


def load_when_free(device: torch.device, load: Callable[[], _Loaded], weights: int, workers: int = 1) -> _Loaded:
    """Load a model when its GPU has memory for it, and once more where it runs out all the same; on a CPU at once.

    Args:
        weights: bytes of the model's weights; 0 where they are not known.
        workers: that share the GPU.

    Raises:
        DeviceFullError: where other processes hold the memory.
    """
    if device.type != "cuda":
        return load()
    wanted = planned_bytes(device, workers)
    needed = min(weights, wanted)  # weights that no empty GPU holds are no matter of other processes
    wait_for_memory(device, wanted, needed)
    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{device}: out of memory while the model is loaded ({type(error).__name__}); tried once more", flush=True)
    free_cached_memory(device)
    wait_for_memory(device, wanted, needed)
    return load()
