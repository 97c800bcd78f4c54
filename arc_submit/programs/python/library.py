"""The functions of Python's modules that the Python subset has, each counted by a meter.

No attribute of a module reaches a program: what is here has its own bounds. Does not know syntax.
"""

from __future__ import annotations

import bisect
import copy
import functools
import heapq
import itertools
import math
import operator
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python import ndimage
from arc_submit.programs.python.functions import COMPARISONS, OPERATORS, Builtin, guarded_multiply
from arc_submit.programs.python.items import get_item
from arc_submit.programs.python.meter import MAPPINGS, SEQUENCES, Meter, kind_of
from arc_submit.programs.python.names import MODULES, full_name

Functions = Mapping[str, Any]
_OPERATORS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mult",
    "floordiv": "FloorDiv",
    "mod": "Mod",
    "and_": "BitAnd",
    "or_": "BitOr",
    "xor": "BitXor",
}
_COMPARISONS = {"eq": "Eq", "ne": "NotEq", "lt": "Lt", "le": "LtE", "gt": "Gt", "ge": "GtE"}
_LONGEST_CHOICE = 1000  # items of a combination or a tuple of a product


def make_library(meter: Meter) -> dict[str, Any]:
    """The functions and constants of modules by their full names."""
    made: dict[str, Functions] = {
        "bisect": {name: _bisection(meter, getattr(bisect, name)) for name in MODULES["bisect"]},
        "collections": _collections(meter),
        "copy": {"copy": lambda value: copy_of(meter, value, deep=False), "deepcopy": lambda value: copy_of(meter, value, deep=True)},
        "functools": _functools(meter),
        "heapq": _heapq(meter),
        "itertools": _itertools(meter),
        "math": _math(meter),
        "numpy.linalg": {"norm": _norm},
        "numpy.lib.stride_tricks": {"sliding_window_view": functools.partial(_windows, meter)},
        "operator": _operator(meter),
        "scipy.ndimage": ndimage.make_functions(meter),
        "sys": {"maxsize": sys.maxsize},
    }
    library = {}
    for module, names in MODULES.items():
        for name in names:
            value = made[module][name]
            library[full_name(module, name)] = Builtin(name, value) if callable(value) and type(value) is not Builtin else value
    return library


def copy_of(meter: Meter, value: Any, *, deep: bool) -> Any:
    """A copy of a value; a deep one keeps what several parts share, and cycles.

    Raises:
        TypeError: for an iterator.
    """
    copies: dict[int, Any] = {}

    def inner(one: Any) -> Any:
        return copied(one) if deep else one

    def copied(one: Any) -> Any:
        if id(one) in copies:
            return copies[id(one)]
        kind = type(one)
        if isinstance(one, Iterator):
            raise TypeError(f"{kind_of(one)} cannot be copied")
        if kind is np.ndarray:
            new = copies[id(one)] = meter.made(one.copy())
        elif kind in MAPPINGS or kind in SEQUENCES or kind in (set, frozenset):
            meter.cells(len(one))
            meter.step(len(one) // 4 + 1)
            if kind in (tuple, frozenset):
                parts = kind([inner(part) for part in one])
                return copies.setdefault(id(one), parts)  # a cycle through it may have been copied by then
            new = copies[id(one)] = copy.copy(one) if kind in (deque, defaultdict) else kind()
            new.clear()  # a deque keeps its length, a defaultdict its function
            if kind in MAPPINGS:
                for key, part in one.items():
                    new[inner(key)] = inner(part)
            elif kind is set:
                new.update([inner(part) for part in one])
            else:
                new.extend(inner(part) for part in one)
        else:
            new = one
        return new

    return copied(value)


def _collections(meter: Meter) -> Functions:
    def counter(values: Any = None, /, **counts: Any) -> Counter[Any]:
        given = () if values is None else values if isinstance(values, dict) else meter.items(values)
        made: Counter[Any] = meter.made(Counter(given, **counts))
        return made

    def with_default(factory: Any = None, /, *values: Any) -> defaultdict[Any, Any]:
        if factory is not None and not callable(factory):
            raise TypeError("the first argument of a defaultdict is a function or None")
        made: defaultdict[Any, Any] = meter.made(defaultdict(factory, *values))
        return made

    def queue(values: Any = (), maxlen: Any = None) -> deque[Any]:
        made: deque[Any] = meter.made(deque(meter.items(values), maxlen))
        return made

    return {
        "Counter": Builtin("Counter", counter, (Counter,)),
        "defaultdict": Builtin("defaultdict", with_default, (defaultdict,)),
        "deque": Builtin("deque", queue, (deque,)),
    }


def _functools(meter: Meter) -> Functions:
    def cached(function: Any) -> Builtin:
        kept: dict[Any, Any] = {}

        def call(*arguments: Any, **keywords: Any) -> Any:
            key = arguments, tuple(keywords.items())
            if key not in kept:
                meter.cells(len(arguments) + 2 * len(keywords) + 1)
                kept[key] = function(*arguments, **keywords)
            meter.step()
            return kept[key]

        return Builtin("function", call, attributes={"cache_clear": kept.clear})

    def cache(maxsize: Any = None, typed: bool = False) -> Any:
        return cached(maxsize) if callable(maxsize) else Builtin("lru_cache", cached)

    def partial(function: Any, /, *arguments: Any, **keywords: Any) -> Builtin:
        if not callable(function):
            raise TypeError(f"{kind_of(function)} cannot be called")
        return Builtin("partial", lambda *more, **others: function(*arguments, *more, **{**keywords, **others}))

    return {
        "cache": cached,
        "lru_cache": cache,
        "cmp_to_key": lambda function: Builtin("key", functools.cmp_to_key(function)),
        "partial": partial,
        "reduce": lambda function, values, *initial: functools.reduce(function, meter.items(values), *initial),
    }


def _heapq(meter: Meter) -> Functions:
    def push(heap: list[Any], item: Any) -> None:
        meter.cells(1)
        heapq.heappush(heap, item)

    def of_list(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(heap: list[Any], *items: Any) -> Any:
            meter.step(len(heap) // 4 + 1 if function is heapq.heapify else 4)
            return function(heap, *items)

        return call

    names = ("heapify", "heappop", "heappushpop", "heapreplace")
    return {
        **{name: of_list(getattr(heapq, name)) for name in names},
        "heappush": push,
        "nlargest": lambda n, values, key=None: meter.made(heapq.nlargest(n, list(meter.items(values)), key)),
        "nsmallest": lambda n, values, key=None: meter.made(heapq.nsmallest(n, list(meter.items(values)), key)),
    }


def _bisection(meter: Meter, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(values: Any, *rest: Any, **keywords: Any) -> Any:
        meter.cells(1)
        meter.step(16)
        return function(values, *rest, **keywords)

    return call


def _itertools(meter: Meter) -> Functions:
    items = meter.items

    def pool(values: Any) -> list[Any]:
        return list(meter.made(list(items(values))))

    def each(values: Iterable[Any], length: int) -> Iterator[Any]:
        """Tuples, each counted."""
        for value in values:
            meter.cells_left -= length
            if meter.cells_left < 0:
                meter.cells(0)
            yield value

    def check(length: float) -> None:
        if length > _LONGEST_CHOICE:
            raise ProgramError(Refusal.CELLS, f"tuples of {length:.0f} items, at most {_LONGEST_CHOICE} are allowed")

    def product(*values: Any, repeat: int = 1) -> Iterator[Any]:
        pools = [pool(one) for one in values]
        check(len(pools) * float(repeat))
        return each(itertools.product(*pools, repeat=repeat), len(pools) * repeat)

    def choices(function: Callable[..., Iterable[Any]], again: bool = False) -> Callable[..., Iterator[Any]]:
        def call(values: Any, r: Any = None) -> Iterator[Any]:
            given = pool(values)
            length = len(given) if r is None else r
            if length > len(given) and not (again and given):
                return iter(())
            check(length)
            return each(function(given, length), length)

        return call

    def chain(*values: Any) -> Iterator[Any]:
        for one in values:
            yield from items(one)

    def chain_of(values: Any) -> Iterator[Any]:
        for one in items(values):
            yield from items(one)

    def accumulate(values: Any, func: Any = None, *, initial: Any = None) -> Iterator[Any]:
        combine = func or (lambda left, right: OPERATORS["Add"](meter, left, right))
        return itertools.accumulate(items(values), combine, initial=initial)

    def count(start: Any = 0, step: Any = 1) -> Iterator[Any]:
        return itertools.count(start, step)

    def first_function(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(called: Any, values: Any) -> Iterator[Any]:
            if called is not None and not callable(called):
                raise TypeError(f"{kind_of(called)} cannot be called")
            return function(called, items(values))

        return call

    def starmap(called: Any, values: Any) -> Iterator[Any]:
        for arguments in items(values):
            yield called(*meter.made(list(items(arguments))))

    return {
        "accumulate": accumulate,
        "chain": Builtin("chain", chain, attributes={"from_iterable": chain_of}),
        "combinations": choices(itertools.combinations),
        "combinations_with_replacement": choices(itertools.combinations_with_replacement, again=True),
        "compress": lambda values, chosen: itertools.compress(items(values), items(chosen)),
        "count": count,
        "cycle": lambda values: itertools.cycle(items(values)),
        "groupby": lambda values, key=None: itertools.groupby(items(values), key),
        "islice": lambda values, *bounds: itertools.islice(items(values), *bounds),
        "pairwise": lambda values: itertools.pairwise(items(values)),
        "permutations": choices(itertools.permutations),
        "product": product,
        "repeat": lambda value, *times: itertools.repeat(value, *times),
        "starmap": starmap,
        "zip_longest": lambda *values, fillvalue=None: itertools.zip_longest(*map(items, values), fillvalue=fillvalue),
        **{name: first_function(getattr(itertools, name)) for name in ("dropwhile", "filterfalse", "takewhile")},
    }


def _math(meter: Meter) -> Functions:
    made, bits = meter.made, meter.limits.int_bits

    def bounded(function: Callable[..., int], most_bits: Callable[..., float]) -> Callable[..., Any]:
        """Of a function whose result is a large whole number."""

        def call(*numbers: Any) -> Any:
            given = [operator.index(one) for one in numbers]
            if most_bits(*given) > 64 * bits:
                raise ProgramError(Refusal.VALUE, f"a whole number of more than {bits} bits")
            return made(function(*given))

        return call

    def bits_of_choice(n: int, k: int | None = None) -> float:
        return float(n if k is None else min(k, max(n - k, 0))) * n.bit_length()

    def product(values: Any, *, start: Any = 1) -> Any:
        total = start
        for value in meter.items(values):
            total = guarded_multiply(meter, total, value)
        return total

    def plain(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *numbers, **keywords: made(function(*numbers, **keywords))

    special: dict[str, Any] = {
        "comb": bounded(math.comb, bits_of_choice),
        "dist": lambda left, right: math.dist(list(meter.items(left)), list(meter.items(right))),
        "factorial": bounded(math.factorial, lambda n: float(n) * n.bit_length()),
        "perm": bounded(math.perm, lambda n, k=None: float(n if k is None else k) * n.bit_length()),
        "prod": product,
    }
    values = {name: getattr(math, name) for name in MODULES["math"]}
    return {name: special.get(name) or (plain(value) if callable(value) else value) for name, value in values.items()}


def _operator(meter: Meter) -> Functions:
    def item_of(*keys: Any) -> Builtin:
        if len(keys) == 1:
            return Builtin("itemgetter", lambda value: get_item(meter, value, keys[0]))
        return Builtin("itemgetter", lambda value: tuple(get_item(meter, value, key) for key in keys))

    def operation(name: str) -> Callable[..., Any]:
        return lambda left, right: OPERATORS[name](meter, left, right)

    def comparison(name: str) -> Callable[..., Any]:
        def call(left: Any, right: Any) -> Any:
            if isinstance(left, SEQUENCES):
                meter.step(meter.weight(left) // 16)
            return meter.made(COMPARISONS[name](left, right))

        return call

    operations = {name: operation(one) for name, one in _OPERATORS.items()}
    return {"itemgetter": item_of, **operations, **{name: comparison(one) for name, one in _COMPARISONS.items()}}


def _norm(value: Any, ord: Any = None, axis: Any = None) -> Any:
    if ord not in (None, 1, 2) or (ord == 2 and np.ndim(value) > 1 and axis is None):
        raise ProgramError(Refusal.VALUE, "norm has the sum of squares and, for one axis, of sizes")
    if isinstance(value, list | tuple) and len(value) > _LONGEST_CHOICE:
        raise ProgramError(Refusal.CELLS, f"a norm of {len(value)} items of a list, at most {_LONGEST_CHOICE} are allowed")
    return np.linalg.norm(np.asarray(value, dtype=float), ord, axis)


def _windows(meter: Meter, array: Any, window_shape: Any, axis: Any = None) -> Any:
    if type(array) is not np.ndarray:
        raise TypeError(f"an array has windows, not {kind_of(array)}")
    windows = np.lib.stride_tricks.sliding_window_view(array, window_shape, axis)
    meter.cells(windows.size)
    return windows
