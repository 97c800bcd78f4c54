"""Whether an error means that memory did not suffice, whoever says so: torch, the driver, a library of CUDA, vllm or the host.

Only torch's allocators raise a class of their own; the others say it in the text of a RuntimeError, ValueError or OSError. Does not know
what was tried or what to try next.
"""

from __future__ import annotations

import gc
import re

import torch

from arc_submit.errors import ArcSubmitError

_TEXTS = re.compile(
    "|".join(
        (
            r"\bout of memory\b(?! (?:bounds|range))",  # "CUDA error: out of memory", "CUDA driver error: ...", "Triton Error [CUDA]: ..."
            r"\w*OUT_OF_MEMORY\b|\bcudaErrorMemoryAllocation\b",
            r"\bCU[A-Z]+_(?:\w+_)?ALLOC(?:ATION)?_FAILED\b",  # cuBLAS, cuDNN, cuFFT, cuSOLVER, cuSPARSE
            r"\bNVML_SUCCESS == r\b",  # torch's allocator asks NVML who holds the memory when it has none left, and NVML does not answer
            r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|\bstd::bad_alloc\b|\bCannot allocate memory\b",
            # vllm, when it makes its cache of keys and values or finds too little memory free for it.
            r"No available memory for the cache blocks",
            r"less than desired [GC]PU memory utilization",
            r"larger than the available KV cache memory",
            r"larger than the maximum number of tokens that can be stored in KV cache",
        )
    ),
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on a GPU or on a CPU, for this error or for a cause that it names (`raise ... from`).

    An error that was merely raised while another was handled is judged by itself. So are the texts of our own errors, which are written
    for people: only their cause counts.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, torch.OutOfMemoryError | MemoryError):
            return True
        if not isinstance(link, ArcSubmitError) and _TEXTS.search(str(link)):
            return True
        link = link.__cause__
    return False


def free_cached_memory(device: torch.device) -> None:
    """Give back what nothing refers to. Call it outside the handler of an error, whose frames hold the tensors of the failed pass."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
