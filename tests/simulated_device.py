"""A simulated GPU: tensors of a device of its own that have shapes and dtypes and no values.

The project's own code runs on it in seconds, with models of any size, on a machine without a GPU. What a GPU would refuse is refused: a
tensor of the host in an operation of the device, and a product of two dtypes. Launches, host synchronizations and bytes are counted. It
rests on FakeTensorMode and on torch's Python backends, which are experimental: `unavailable` says why it cannot work with a version of
torch. It does not know values (each number that comes from the device is 0), speed, fragmentation, or the memory that a CUDA context takes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "simulated"
_ROUND = 512  # bytes: CUDA's caching allocator rounds every block up to a multiple of it
_SETUP = "_setup_privateuseone_for_python_backend"
_aten = torch.ops.aten
# On a GPU each of these takes one dtype for all of its floating-point arguments.
_PRODUCTS = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.addmm_.default,
    _aten.addmm.out,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten.linear.default,
    _aten.matmul.default,
}
_READS = {_aten._local_scalar_dense.default, _aten.item.default, _aten.is_nonzero.default}
# These move data between the host and the device, or take indices from either.
_MIXING = {
    _aten._to_copy.default,
    _aten.copy_.default,
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
}
_NO_KERNEL = {
    _aten.detach.default,
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten._unsafe_view.default,
    _aten.empty_like.default,
}
_AUTOCAST_LOW = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
_active: list[Meter] = []


def unavailable() -> str:
    """Why the simulated device cannot work with this torch; "" where it can."""
    return "" if hasattr(backend_registration, _SETUP) else f"torch {torch.__version__} has no Python backends ({_SETUP})"


class _Backend(backend_registration._DummyBackendModule if not unavailable() else object):  # type: ignore[misc]
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@cache
def _register() -> list[torch.library.Library]:
    """Make the device known to torch, once for a process, with autocast for products; the libraries live as long as the result."""
    getattr(backend_registration, _SETUP)(NAME, _Backend())
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    low = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for name in _AUTOCAST_LOW:
        low.impl(name, _with_low_precision(getattr(_aten, name).default))
    attention = torch.library.Library("aten", "IMPL", "AutogradPrivateUse1")
    attention.impl("scaled_dot_product_attention", _attend)
    return [others, low, attention]


def _with_low_precision(operation: Any) -> Callable[..., Any]:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME)

        def lowered(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*map(lowered, args), **{name: lowered(value) for name, value in kwargs.items()})

    return run


class Meter(TorchDispatchMode):
    """Counts what the device does and refuses what a GPU refuses.

    Attributes:
        launches: kernels, by operation.
        syncs: waits of the host for a value of the device, by operation.
        uploads: copies from the host to the device.
        live, peak: bytes of tensors on the device, now and at most. `reset_peak` begins anew.
        capability: of the GPU, such as (7, 5) for a T4: which attention kernels it has.
        capacity: bytes after which an allocation raises torch.OutOfMemoryError; None for no limit.
    """

    def __init__(self, capability: tuple[int, int], capacity: int | None = None):
        super().__init__()
        self.capability = capability
        self.launches: Counter[str] = Counter()
        self.syncs: Counter[str] = Counter()
        self.uploads = 0
        self.live = self.peak = 0
        self.capacity = capacity
        self._storages: dict[int, Any] = {}

    def reset_peak(self) -> None:
        """Count from now: launches, syncs and uploads from 0, the peak from what is live."""
        self.launches.clear()
        self.syncs.clear()
        self.uploads = 0
        self.peak = self.live

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        _refuse_mixtures(operation, given)
        if operation in _READS:
            self.syncs[_name(operation)] += on_device(given[0])
            return 0.0 if given[0].is_floating_point() else 0
        if operation is _aten.nonzero.default:
            self.syncs[_name(operation)] += on_device(given[0])
            return torch.zeros((1, given[0].ndim), dtype=torch.long, device=given[0].device)
        if operation is _aten.scaled_dot_product_attention.default:  # where no gradients are recorded
            with self:  # a mode is off while it handles a call
                return _attend(*args, **(kwargs or {}))
        out = operation(*args, **(kwargs or {}))
        made = [one for one in tree_leaves(out) if isinstance(one, torch.Tensor)]
        for tensor in made:
            if on_device(tensor):
                self._allocate(tensor)
        if any(map(on_device, (*given, *made))):
            self._count(operation, given, made)
        return out

    def _count(self, operation: Any, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        if operation is _aten._to_copy.default and on_device(given[0]) and not on_device(made[0]):
            self.syncs["copy to the host"] += 1
        elif not all(map(on_device, given)) and operation in _MIXING and any(one.ndim for one in given if not on_device(one)):
            self.uploads += 1
        returns = operation._schema.returns
        is_view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        if not is_view and operation not in _NO_KERNEL and operation.namespace != "prim":
            self.launches[_name(operation)] += 1

    def _allocate(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // _ROUND) * _ROUND
        if self.capacity is not None and self.live + size > self.capacity:
            raise torch.OutOfMemoryError(f"simulated device: {size} bytes are wanted beside {self.live} of {self.capacity}")

        def freed(_: Any) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def on_device(tensor: torch.Tensor) -> bool:
    """Whether a tensor is on the simulated device."""
    return tensor.device.type == NAME


def _name(operation: Any) -> str:
    return str(operation).removeprefix("aten.")


def _refuse_mixtures(operation: Any, given: list[torch.Tensor]) -> None:
    """Raise RuntimeError, as a GPU does, for arguments of two devices or a product of two dtypes."""
    # A number in a tensor without dimensions may come from the host.
    if operation not in _MIXING and len({one.device for one in given if one.ndim}) > 1:
        shapes = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in given)
        raise RuntimeError(f"{_name(operation)}: expected all tensors on one device, got {shapes}")
    if operation in _PRODUCTS and len(kinds := {one.dtype for one in given}) > 1:
        raise RuntimeError(f"{_name(operation)}: expected one dtype, got {', '.join(sorted(map(str, kinds)))}")


class _NoValues(TorchFunctionMode):
    """torch.tensor without the values: a fake tensor that knows them would compute with them, on a device that has no kernels."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not torch.tensor:
            return function(*args, **kwargs)
        known = function(*args, **{**kwargs, "device": None})
        return torch.zeros(known.shape, dtype=known.dtype).to(kwargs.get("device") or "cpu")


def _zeros(shape: tuple[int, ...], zero: float) -> Any:
    return zero if not shape else [_zeros(shape[1:], zero) for _ in range(shape[0])]


def attention_kernel(capability: tuple[int, int], masked: bool, shared: bool) -> str:
    """The kernel that torch chooses for 16-bit tensors: flash, efficient or math.

    Args:
        masked: with a mask.
        shared: several query heads share a head of keys and values, and torch is asked to handle it.
    """
    if capability >= (8, 0) and not masked:
        return "flash"
    return "math" if shared else "efficient"


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """torch's scaled_dot_product_attention on the simulated device."""
    meter = _active[-1]
    _refuse_mixtures(_aten.bmm.default, [query, key, value])
    if attn_mask is not None and not on_device(attn_mask):
        raise RuntimeError("attention: expected all tensors on one device, the mask is on the host")
    kernel = attention_kernel(meter.capability, attn_mask is not None, enable_gqa and query.shape[1] != key.shape[1])
    meter.launches[f"attention ({kernel})"] += 1
    out: torch.Tensor = _Attention.apply(query, key, value, kernel)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """Attention as the bytes that the kernel takes.

    flash keeps one number for each query; its backward pass sums in float32. efficient does too, and sums all three gradients. math keeps
    the scores of all pairs of positions in float32.
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kernel: str) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        out = torch.empty_like(query)
        kept = torch.empty(batch, heads, length, 1 if kernel != "math" else key.shape[2], dtype=torch.float32, device=query.device)
        if kernel == "math":
            torch.empty_like(kept)
        ctx.save_for_backward(query, key, value, out, kept)
        ctx.kernel = kernel
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, _, kept = ctx.saved_tensors
        # Each of the query's heads sums gradients of keys and values of its own.
        wide = [torch.empty(*query.shape[:2], *one.shape[2:], dtype=one.dtype, device=one.device) for one in (key, value)]
        sums = [torch.empty_like(one, dtype=torch.float32) for one in {"flash": [query]}.get(ctx.kernel, [query, *wide])]
        if ctx.kernel == "math":
            sums += [torch.empty_like(kept), torch.empty_like(kept)]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


@contextlib.contextmanager
def simulated_device(capability: tuple[int, int] = (8, 9), capacity: int | None = None) -> Iterator[Meter]:
    """A context in which torch.device(NAME) exists and its tensors are simulated; the meter counts what happens in this thread.

    Args:
        capability: of the GPU: (7, 5) is a T4, (8, 9) an L4.
        capacity: bytes of the device.
    """
    _register()
    meter = Meter(capability, capacity)

    def tolist(tensor: torch.Tensor) -> Any:
        meter.syncs["tolist"] += on_device(tensor)
        return _zeros(tensor.shape, 0.0 if tensor.is_floating_point() else 0)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", tolist))
        # Modes belong to a thread, so the backward pass must stay in this one.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        for mode in (FakeTensorMode(allow_non_fake_inputs=True), meter, _NoValues()):
            stack.enter_context(mode)
        _active.append(meter)
        stack.callback(_active.pop)
        yield meter
