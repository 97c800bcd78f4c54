"""The built-in functions and the operators of the Python subset, each counted by a meter.

What has a bound on its own is Python's function; what can make a large value from a small one is guarded. Does not know syntax or arrays.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.meter import Meter, kind_of


@dataclass(frozen=True, eq=False)
class Builtin:
    """A function that the language has: a value that programs may pass on and call.

    Attributes:
        name: in the language.
        call: what it does.
        types: for `isinstance` and `dtype`, where the name is a type's.
        attributes: functions that it has by name, such as dict.fromkeys.
    """

    name: str
    call: Callable[..., Any]
    types: tuple[type, ...] = ()
    attributes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<function {self.name}>"

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self.call(*arguments, **keywords)


_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool, np.bool_),
    "dict": (dict,),
    "float": (float, np.floating),
    "frozenset": (frozenset,),
    "int": (int,),
    "list": (list,),
    "range": (range,),
    "set": (set,),
    "slice": (slice,),
    "str": (str,),
    "tuple": (tuple,),
}


def make_builtins(meter: Meter) -> dict[str, Builtin]:
    """The built-in functions by name."""
    items, made = meter.items, meter.made

    def read(function: Callable[..., Any]) -> Callable[..., Any]:
        """Of a function that reads its first argument, with the items counted."""
        return lambda value, *rest, **keywords: made(function(items(value), *rest, **keywords))

    def any_number(function: Callable[..., Any]) -> Callable[..., Any]:
        """Of min and max, which take one iterable or several values."""

        def call(*values: Any, **keywords: Any) -> Any:
            return function(items(values[0]), **keywords) if len(values) == 1 else function(*values, **keywords)

        return call

    def container(kind: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **keywords: Any) -> Any:
            if keywords and kind is not dict:
                raise TypeError("no keywords are allowed")
            return made(kind(*(items(value) if type(value) is not dict or kind is not dict else value for value in values), **keywords))

        return call

    def make_range(*bounds: Any) -> range:
        value = range(*bounds)
        meter.cells(math.ceil(len(value) / 100) if len(value) <= meter.limits.value_cells else len(value))
        return value

    def text(value: Any = "") -> str:
        meter.cells(3 * meter.weight(value))
        left = [value]
        while left:
            one = left.pop()
            if isinstance(one, list | tuple | set | frozenset | deque):
                left.extend(items(one))
            elif isinstance(one, dict):
                left.extend([*one.keys(), *one.values()])
            elif not (one is None or isinstance(one, bool | int | float | str | np.generic | np.ndarray | np.dtype | slice)):
                raise ProgramError(Refusal.TYPE, f"{kind_of(one)} has no text")
        return str(made(str(value)))

    def text_or_message(value: Any = "") -> str:
        return message_of(value) if isinstance(value, Exception) else text(value)

    def round_to(value: Any, digits: Any = None) -> Any:
        if digits is not None and abs(digits) > 20:
            raise ProgramError(Refusal.VALUE, f"{digits} digits, at most 20 are allowed")
        return made(round(value) if digits is None else round(value, digits))

    def power(base: Any, exponent: Any, modulus: Any = None) -> Any:
        return guarded_power(meter, base, exponent) if modulus is None else made(pow(base, exponent, modulus))

    def is_instance(value: Any, kinds: Any) -> bool:
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        if not all(isinstance(one, Builtin) and one.types for one in wanted):
            raise ProgramError(Refusal.TYPE, "isinstance needs types of the language")
        return isinstance(value, tuple(kind for one in wanted for kind in one.types))

    def type_of(value: Any) -> Builtin:
        found = functions_by_type.get(type(value))
        if found is None:
            raise ProgramError(Refusal.TYPE, f"the type of {kind_of(value)} is not part of the language")
        return found

    def of_function(kind: Callable[..., Any]) -> Callable[..., Any]:
        def call(function: Any, *values: Any) -> Any:
            if function is not None and not callable(function):
                raise ProgramError(Refusal.TYPE, f"{kind_of(function)} cannot be called")
            return kind(function, *map(items, values))

        return call

    def whole(value: Any = 0, *base: Any) -> Any:
        return made(int(value, *base))

    functions: dict[str, Callable[..., Any]] = {
        "abs": lambda value: made(abs(value)),
        "all": read(all),
        "any": read(any),
        "bin": lambda value: made(bin(value)),
        "bool": bool,
        "callable": callable,
        "chr": chr,
        "dict": container(dict),
        "divmod": divmod,
        "enumerate": lambda value, start=0: enumerate(items(value), start),
        "filter": of_function(filter),
        "float": float,
        "frozenset": container(frozenset),
        "hex": lambda value: made(hex(value)),
        "int": whole,
        "isinstance": is_instance,
        "iter": lambda value: iter(items(value)),
        "len": len,
        "list": container(list),
        "map": of_function(map),
        "max": any_number(max),
        "min": any_number(min),
        "next": lambda value, *default: next(value, *default),
        "oct": lambda value: made(oct(value)),
        "ord": ord,
        "pow": power,
        "print": lambda *values, **keywords: None,
        "range": make_range,
        "repr": lambda value: text([value])[1:-1],
        "reversed": lambda value: reversed(list(items(value))),
        "round": round_to,
        "set": container(set),
        "slice": slice,
        "sorted": read(sorted),
        "str": text_or_message,
        "sum": lambda value, /, start=0: sum_of(meter, value, start),
        "tuple": container(tuple),
        "type": type_of,
        "zip": lambda *values, strict=False: zip(*map(items, values), strict=bool(strict)),
    }
    of_dict = {"fromkeys": lambda keys, value=None: made(dict.fromkeys(items(keys), value))}
    found = {name: Builtin(name, function, _TYPES.get(name, ()), of_dict if name == "dict" else {}) for name, function in functions.items()}
    functions_by_type = {kinds[0]: found[name] for name, kinds in _TYPES.items()}
    return found | {name: Builtin(name, exception_maker(text, kind), (kind,)) for name, kind in EXCEPTIONS.items()}


def exception_maker(text: Callable[[Any], str], kind: type[Exception]) -> Callable[..., Exception]:
    """What makes an exception of a type; it holds texts alone."""
    made = RaisedError if kind is Exception else kind
    return lambda *values: made(*map(text, values))


class RaisedError(Exception):
    """A program raises Exception itself."""


EXCEPTIONS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        *(ArithmeticError, AssertionError, AttributeError, Exception, IndexError, KeyError, LookupError, NameError, NotImplementedError),
        *(OverflowError, RuntimeError, StopIteration, TypeError, ValueError, ZeroDivisionError),
    )
}
_LONGEST_MESSAGE = 300


def message_of(error: Exception) -> str:
    """The message of an exception, of which only texts and numbers are shown."""
    plain = all(isinstance(one, int | float | str) for one in error.args)
    return str(error)[:_LONGEST_MESSAGE] if plain else type(error).__name__


def sum_of(meter: Meter, value: Any, start: Any = 0) -> Any:
    """`sum`, each partial sum counted: of lists it grows with the square of their number."""
    total = start
    for item in meter.items(value):
        meter.step()
        total = guarded_add(meter, total, item)
    return total


def guarded_add(meter: Meter, left: Any, right: Any) -> Any:
    """`+` for any two values."""
    if type(left) is int and type(right) is int:
        return meter.made(left + right)
    if isinstance(left, list | tuple | str | deque):
        meter.cells(len(left) + len(right) if hasattr(right, "__len__") else 0)
    else:
        guard_broadcast(meter, left, right)
    return meter.made(left + right)


def guarded_multiply(meter: Meter, left: Any, right: Any) -> Any:
    """`*` for any two values: a repeated list or text is counted before it is made."""
    for one, count in ((left, right), (right, left)):
        if isinstance(one, list | tuple | str | deque) and isinstance(count, int | np.integer):
            meter.cells(len(one) * max(0, int(count)))
    guard_broadcast(meter, left, right)
    return meter.made(left * right)


def guarded_power(meter: Meter, base: Any, exponent: Any) -> Any:
    """`**` for any two values: the size of a whole number is estimated before it is made."""
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent * (base.bit_length() - 1) > meter.limits.int_bits:
        raise ProgramError(Refusal.VALUE, f"a whole number of more than {meter.limits.int_bits} bits")
    guard_broadcast(meter, base, exponent)
    return meter.made(base**exponent)


def guarded_shift(meter: Meter, left: Any, right: Any) -> Any:
    """`<<` for any two values."""
    if isinstance(left, int) and isinstance(right, int) and right > meter.limits.int_bits:
        raise ProgramError(Refusal.VALUE, f"a whole number of more than {meter.limits.int_bits} bits")
    guard_broadcast(meter, left, right)
    return meter.made(left << right)


def guarded_modulo(meter: Meter, left: Any, right: Any) -> Any:
    """`%` for numbers and arrays; a text on the left would be a format.

    Raises:
        ProgramError: FORBIDDEN for a text.
    """
    if isinstance(left, str):
        raise ProgramError(Refusal.FORBIDDEN, "formats of texts are not part of the language")
    guard_broadcast(meter, left, right)
    return meter.made(left % right)


def guarded_matmul(meter: Meter, left: Any, right: Any) -> Any:
    """`@` for two arrays."""
    guard_product(meter, left, right)
    return meter.made(left @ right)


def guard_product(meter: Meter, left: Any, right: Any) -> None:
    """Count the work of a product of two arrays, an upper bound of which is the product of their sizes."""
    work = float(np.size(left)) * np.size(right)
    meter.cells(min(work, meter.limits.value_cells) if work <= 100 * meter.limits.value_cells else work)


def guard_broadcast(meter: Meter, left: Any, right: Any) -> None:
    """Refuse two arrays that broadcast to a large one before that is made."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        for one in (left, right):
            if isinstance(one, list | tuple):
                meter.cells(meter.weight(one))
        first, second = np.size(left), np.size(right)
        if first * second > meter.limits.value_cells and first > 1 and second > 1:
            try:
                shape = np.broadcast_shapes(np.shape(left), np.shape(right))
            except ValueError:
                return  # an operation on both makes no large array of them
            meter.cells(math.prod(shape))


def _simple(function: Callable[[Any, Any], Any]) -> Callable[[Meter, Any, Any], Any]:
    def call(meter: Meter, left: Any, right: Any) -> Any:
        guard_broadcast(meter, left, right)
        return meter.made(function(left, right))

    return call


# What the operators do, by their names in the syntax tree.
OPERATORS: Mapping[str, Callable[[Meter, Any, Any], Any]] = {
    "Add": guarded_add,
    "Sub": _simple(operator.sub),
    "Mult": guarded_multiply,
    "Div": _simple(operator.truediv),
    "FloorDiv": _simple(operator.floordiv),
    "Mod": guarded_modulo,
    "Pow": guarded_power,
    "LShift": guarded_shift,
    "RShift": _simple(operator.rshift),
    "BitOr": _simple(operator.or_),
    "BitXor": _simple(operator.xor),
    "BitAnd": _simple(operator.and_),
    "MatMult": guarded_matmul,
}
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": lambda left, right: left in right,
    "NotIn": lambda left, right: left not in right,
}
