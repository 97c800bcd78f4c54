"""Every spelling of "out of memory" is known, and no other failure is taken for it."""

from __future__ import annotations

import errno

import pytest
import torch

from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.errors import ConfigError

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.56 GiB"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN Frontend error: out of memory"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "c10/cuda/CUDACachingAllocator.cpp":1154, please report a bug to PyTorch.'),
    RuntimeError("NVML: an internal driver error, out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: tried to allocate 8 bytes."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: tried to allocate 8 bytes."),
    RuntimeError("unable to mmap 4096 bytes from file <x.safetensors>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("std::bad_alloc"),
    ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."),
    ValueError("Free memory on device cuda:0 (3.2/14.6 GiB) on startup is less than desired GPU memory utilization (0.9, 13.1 GiB)."),
    ValueError("(4.50 GiB KV cache is needed, which is larger than the available KV cache memory (1.20 GiB)."),
    ValueError("The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (9216)."),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("expected all tensors on one device, got cuda:0 and cpu"),
    RuntimeError("out of resource: shared memory, Required: 114688, Hardware limit: 65536"),
    ValueError("index 7 is out of range; the memory format is channels_last"),
    OSError(errno.ENOSPC, "No space left on device"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[:40])
def test_each_spelling_is_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:40])
def test_another_failure_is_not_taken_for_it(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_named_cause_counts_and_an_error_handled_before_does_not() -> None:
    cause = torch.OutOfMemoryError("CUDA out of memory")
    first, outer = RuntimeError("the engine failed"), ConfigError("model x: cannot be started")
    first.__cause__, outer.__cause__ = cause, first
    assert is_out_of_memory(outer)
    after = RuntimeError("CUDA error: an illegal memory access was encountered")
    after.__context__ = cause
    assert not is_out_of_memory(after)
    first.__cause__ = outer  # a circle ends
    assert not is_out_of_memory(first)


def test_a_text_of_ours_is_not_searched() -> None:
    assert not is_out_of_memory(ConfigError("/data/out of memory/model: not a folder"))
