"""The numpy functions and the methods of arrays that the Python subset has, each bounded by a meter.

A function whose result can be much larger than its arguments has an estimate of the size, which is checked before the call. Does not know
syntax.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.functions import Builtin, guard_broadcast, guard_product
from arc_submit.programs.python.meter import Meter, kind_of, product
from arc_submit.programs.python.subset import ARRAY_METHODS, ARRAY_PROPERTIES, NUMPY_CONSTANTS, NUMPY_FUNCTIONS, NUMPY_TYPES

KEYWORDS = frozenset(
    {"axis", "axes", "dtype", "k", "n", "mode", "constant_values", "return_counts", "return_index", "return_inverse", "shape"}
    | {"fill_value", "keepdims", "a_min", "a_max", "min", "max", "copy", "indexing", "invert", "shift", "reps", "repeats", "pad_width"}
    | {"decimals", "start", "stop", "step", "num", "offset", "side", "kind", "newshape", "minlength", "N", "M", "ddof", "obj", "values"}
    | {"arr", "ndmin", "order", "initial"}
)
_DTYPES: dict[str, Any] = {name: np.dtype(name) for name in NUMPY_TYPES if name.rstrip("0123456789") in ("int", "uint", "float")}
_DTYPES |= {"int": np.dtype(np.int64), "int_": np.dtype(np.int64), "intp": np.dtype(np.int64), "integer": np.dtype(np.int64)}
_DTYPES |= {"float": np.dtype(float), "float_": np.dtype(float), "bool": np.dtype(bool), "bool_": np.dtype(bool)}
_SCALARS: dict[str, tuple[type, ...]] = {"ndarray": (np.ndarray,), "integer": (np.integer,)}
_SCALARS |= {name: (value.type,) for name, value in _DTYPES.items() if name in NUMPY_TYPES and name != "integer"}
_EMPTY = {"empty": "zeros", "empty_like": "zeros_like"}  # what memory held before is no value

Size = Callable[..., float]


def _shape(shape: Any, *_: Any, **keywords: Any) -> float:
    return product(np.atleast_1d(shape))


def _like(array: Any, *_: Any, **keywords: Any) -> float:
    return product(np.atleast_1d(keywords["shape"])) if "shape" in keywords else float(np.size(array))


def _of_axes(array: Any, pad_width: Any, *_: Any, **keywords: Any) -> float:
    pad = 2.0 * max(0, float(np.max(pad_width)))
    return product(side + pad for side in np.shape(array))


def _arange(*bounds: Any, start: Any = 0, stop: Any = None, step: Any = 1, **keywords: Any) -> float:
    first, last, by = (0, *bounds, step) if len(bounds) == 1 else (*bounds, *(start, stop, step)[len(bounds) :])
    return abs((float(last) - float(first)) / float(by)) if last is not None else abs(float(first) / float(by))


def _repeat(array: Any, repeats: Any, *_: Any, **keywords: Any) -> float:
    return float(np.size(array)) * max(0.0, float(np.max(repeats)))


def _tile(array: Any, reps: Any, *_: Any, **keywords: Any) -> float:
    return float(np.size(array)) * product(np.abs(np.atleast_1d(reps)))


def _product_of_sizes(*arrays: Any, **keywords: Any) -> float:
    return product(np.size(one) for one in arrays)


def _square(array: Any, k: Any = 0, *_: Any, **keywords: Any) -> float:
    return (np.size(array) + abs(float(k))) ** 2 if np.ndim(array) == 1 else float(np.size(array))


_SIZES: dict[str, Size] = {
    **dict.fromkeys(("zeros", "ones", "empty", "full", "ndindex"), _shape),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like"), _like),
    **dict.fromkeys(("resize", "broadcast_to"), lambda array, shape, **_: product(np.atleast_1d(shape))),
    "ndindex": lambda *shape, **_: product(np.ravel(np.array(shape))),
    "indices": lambda shape, *_, **__: product(shape) * len(shape),
    "identity": lambda n, *_, **__: float(n) ** 2,
    "eye": lambda N, M=None, *_, **__: float(N) * float(N if M is None else M),  # noqa: N803
    "linspace": lambda start, stop, num=50, *_, **__: float(num),
    "arange": _arange,
    "pad": _of_axes,
    "repeat": _repeat,
    "tile": _tile,
    "outer": _product_of_sizes,
    "kron": _product_of_sizes,
    "meshgrid": lambda *arrays, **_: _product_of_sizes(*arrays) * max(1, len(arrays)),
    "ix_": _product_of_sizes,
    "diag": _square,
    "bincount": lambda array, weights=None, minlength=0: max(float(np.max(array, initial=0)), float(minlength)) + 1,
}
_PRODUCTS = ("dot", "matmul")
_LARGEST_AXES = 8  # numpy's index arithmetic is slow on many axes


def make_numpy(meter: Meter) -> dict[str, Any]:
    """What `np` holds, by name."""
    names: dict[str, Any] = {name: getattr(np, name) for name in NUMPY_CONSTANTS}
    for name in NUMPY_TYPES:
        dtype = _DTYPES.get(name)
        kinds = _SCALARS[name]
        names[name] = Builtin(name, _cannot_call if dtype is None or name == "integer" else kinds[0], kinds)
    for name in NUMPY_FUNCTIONS:
        function = getattr(np, _EMPTY.get(name, name))
        parts = ("reduce", "accumulate") if isinstance(function, np.ufunc) and function.nin == 2 and function.nout == 1 else ()
        of_parts = {part: _bounded(meter, part, getattr(function, part)) for part in parts}
        names[name] = Builtin(name, _bounded(meter, name, function), attributes=of_parts)
    names["ndindex"] = Builtin("ndindex", _bounded(meter, "ndindex", lambda *shape: list(np.ndindex(*shape))))
    names["ndenumerate"] = Builtin("ndenumerate", _bounded(meter, "ndenumerate", lambda array: list(np.ndenumerate(array))))
    return names


def _cannot_call(*_: Any) -> None:
    raise ProgramError(Refusal.TYPE, "this type makes no values")


def _bounded(meter: Meter, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    size = _SIZES.get(name)

    def call(*arguments: Any, **keywords: Any) -> Any:
        given = [_argument(meter, one) for one in arguments]
        named = {key: _keyword(meter, key, one) for key, one in keywords.items()}
        if size is not None:
            meter.cells(size(*given, **named))
        elif name in _PRODUCTS:
            guard_product(meter, *given[:2])
        else:
            arrays = [one for one in given if isinstance(one, np.ndarray | list)]
            for other in arrays[1:]:
                guard_broadcast(meter, np.asarray(arrays[0]), np.asarray(other))
        return _result(meter, function(*given, **named))

    return call


def _argument(meter: Meter, value: Any) -> Any:
    """An argument of a numpy function; iterators are read, functions and texts refused."""
    if isinstance(value, list | tuple):
        meter.cells(meter.weight(value))
        return type(value)(map(_plain, value)) if any(isinstance(one, Builtin | range) for one in value) else value
    if isinstance(value, np.ndarray):
        meter.step(value.size // 64)
        return value
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Builtin):
        return dtype_of(value)
    if value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray | np.dtype | range | slice | list | tuple):
        return value
    raise ProgramError(Refusal.TYPE, f"numpy does not take {kind_of(value)}")


def _keyword(meter: Meter, name: str, value: Any) -> Any:
    if name not in KEYWORDS:
        raise ProgramError(Refusal.FORBIDDEN, f"the keyword {name} of numpy is not part of the language")
    return dtype_of(value) if name == "dtype" else _argument(meter, value)


def dtype_of(value: Any) -> Any:
    """The dtype that a value of a program names.

    Raises:
        ProgramError: TYPE for any other than numbers and truth values.
    """
    if value is None or (isinstance(value, np.dtype) and value.kind in "biuf"):
        return value
    name = value.name if isinstance(value, Builtin) else value
    if isinstance(name, str) and name in _DTYPES:
        return _DTYPES[name]
    raise ProgramError(Refusal.TYPE, f"{kind_of(value)} is no type of numbers")


def _result(meter: Meter, value: Any) -> Any:
    if isinstance(value, tuple):  # named tuples too
        return tuple(_result(meter, one) for one in value)
    if isinstance(value, np.ndarray) and value.ndim > _LARGEST_AXES:
        raise ProgramError(Refusal.VALUE, f"an array of {value.ndim} axes, at most {_LARGEST_AXES} are allowed")
    return meter.made(value)


def make_array_methods(meter: Meter) -> dict[str, Callable[..., Any]]:
    """The methods of arrays and of single numbers of arrays, by name; the first argument is the value."""

    def method(name: str) -> Callable[..., Any]:
        def call(value: Any, *arguments: Any, **keywords: Any) -> Any:
            given = [_argument(meter, one) for one in arguments]
            named = {key: _keyword(meter, key, one) for key, one in keywords.items()}
            meter.step(np.size(value) // 64)
            if name == "repeat":
                meter.cells(_repeat(value, *given, **named))
            elif name == "dot":
                guard_product(meter, value, *given[:1])
            elif name == "take":
                meter.cells(float(np.size(value)) * np.size(given[0] if given else 0))
            elif name == "astype":
                given = [dtype_of(one) for one in given]
            return _result(meter, getattr(value, name)(*given, **named))

        return call

    return {name: method(name) for name in ARRAY_METHODS}


def array_property(value: Any, name: str) -> Any:
    """A property of an array or of a number of one; `flat` of an array with gaps is a copy, which cannot be assigned to."""
    if name != "flat":
        return getattr(value, name)
    flat = value.ravel()
    if not np.may_share_memory(flat, value):
        flat.flags.writeable = False
    return flat


def is_property(name: str) -> bool:
    return name in ARRAY_PROPERTIES


def guard_index(meter: Meter, value: Any, index: Any) -> None:
    """Refuse an index of arrays that gives a large array before that is made."""
    parts = index if isinstance(index, tuple) else (index,)
    chosen = [np.asarray(one) for one in parts if isinstance(one, list | np.ndarray)]
    whole = [one for one in chosen if one.dtype.kind != "b"]
    if not whole:
        return
    count = product(np.broadcast_shapes(*(one.shape for one in whole)))
    rest = itertools.islice(value.shape, len(parts), None) if len(chosen) == len(parts) else value.shape
    meter.cells(count * product(rest) if count * value.size > meter.limits.value_cells else 0)
