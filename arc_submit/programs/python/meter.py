"""Limits of one program's run and the meter that counts against them: steps, cells, sizes of values, depth of calls.

Every loop, call and creation of a value in the interpreter goes through the meter. Does not know syntax.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from arc_submit.programs.interface import ProgramError, Refusal


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        steps: statements, iterations, calls and items that built-in functions read, for each input.
        cells: items of all containers, arrays and texts that it makes, for each input.
        value_cells: items of a single one.
        int_bits: of a whole number.
        depth: calls of its functions within each other.
        cpu_seconds: of the child process for one program with all its inputs; it is killed then.
        wall_seconds: the same by the clock, for a machine that is busy with other work.
        memory_mb: that the child process may take beyond what it holds at its start.
    """

    steps: int = 500_000
    cells: int = 20_000_000
    value_cells: int = 1_000_000
    int_bits: int = 1024
    depth: int = 1000
    cpu_seconds: float = 4.0
    wall_seconds: float = 40.0
    memory_mb: int = 512


_HEAVIEST = 200_000  # items of a nested value that is compared, printed or given to numpy
MAPPINGS = (dict, Counter, defaultdict)
SEQUENCES = (list, tuple, deque)
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_COUNTED = frozenset({*MAPPINGS, *SEQUENCES, set, frozenset, str})
_READABLE = frozenset({*MAPPINGS, *SEQUENCES, range, str, np.ndarray, *VIEWS})
_PLAIN = (int, float, str, np.integer, np.bool_, np.floating)  # bool is an int


class Meter:
    """Counts what a run uses; `reset` begins the next input."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.reset()

    def reset(self) -> None:
        self.steps_left, self.cells_left, self.depth = self.limits.steps, self.limits.cells, 0

    def step(self, count: int = 1) -> None:
        """Count steps.

        Raises:
            ProgramError: STEPS.
        """
        self.steps_left -= count
        if self.steps_left < 0:
            raise ProgramError(Refusal.STEPS, f"more than {self.limits.steps} steps")

    def cells(self, count: float) -> None:
        """Count the cells of a value that is about to be made, or was.

        Raises:
            ProgramError: CELLS.
        """
        if count > self.limits.value_cells:
            raise ProgramError(Refusal.CELLS, f"a value of {count:.0f} cells, at most {self.limits.value_cells} are allowed")
        self.cells_left -= int(count)
        if self.cells_left < 0:
            raise ProgramError(Refusal.CELLS, f"more than {self.limits.cells} cells in all")

    def items(self, value: Any) -> Iterable[Any]:
        """What iterating over a value gives, counted in steps.

        Raises:
            ProgramError: STEPS; TYPE for a set whose order is not fixed.
            TypeError: where it cannot be iterated.
        """
        kind = type(value)
        if kind is set or kind is frozenset:
            if not all(map(_has_fixed_order, value)):
                raise ProgramError(Refusal.TYPE, "a set of other things than numbers, texts and tuples of them has no fixed order")
        elif kind not in _READABLE:
            return self._counted(value)
        self.step(len(value) // 4)
        return value  # type: ignore[no-any-return]

    def _counted(self, value: Any) -> Iterator[Any]:
        if not isinstance(value, Iterator):
            raise TypeError(f"{kind_of(value)} cannot be iterated")
        return self._each(value)

    def _each(self, value: Iterator[Any]) -> Iterator[Any]:
        for item in value:
            self.step()
            yield item

    def made(self, value: Any) -> Any:
        """A value that an operation has made, after a count of its cells.

        Raises:
            ProgramError: CELLS; TYPE for a value that programs do not have; VALUE for a number that is too large.
        """
        kind = type(value)
        if kind is int:
            if value.bit_length() > self.limits.int_bits:
                raise ProgramError(Refusal.VALUE, f"a whole number of more than {self.limits.int_bits} bits")
        elif kind is np.ndarray:
            if value.dtype.kind not in "biuf":
                raise ProgramError(Refusal.TYPE, f"an array of type {value.dtype}, numbers and truth values are allowed")
            self.cells(value.size)
        elif kind in _COUNTED:
            self.cells(len(value))
            if kind in (list, tuple) and value and type(value[0]) is np.ndarray:
                for one in value:
                    self.made(one)
        elif kind is complex or isinstance(value, np.complexfloating | np.void | np.character):
            raise ProgramError(Refusal.TYPE, f"a value of type {kind.__name__}")
        return value

    def weight(self, value: Any) -> int:
        """The number of items in a nested value, a shared part counted as often as it occurs.

        Raises:
            ProgramError: CELLS where there are too many.
        """
        total, left = 0, [value]
        while left:
            one = left.pop()
            if isinstance(one, list | tuple | set | frozenset | deque):
                total += len(one)
                left.extend(one)
            elif isinstance(one, dict):
                total += 2 * len(one)
                left.extend([*one.keys(), *one.values()])
            elif isinstance(one, str):
                total += len(one)
            elif isinstance(one, np.ndarray):
                total += one.size
            if total > _HEAVIEST:
                raise ProgramError(Refusal.CELLS, f"a nested value of more than {_HEAVIEST} cells")
        return total


def _has_fixed_order(item: Any) -> bool:
    # The hash of anything else may be its address.
    return isinstance(item, _PLAIN) or (type(item) in (tuple, frozenset) and all(map(_has_fixed_order, item)))


def kind_of(value: Any) -> str:
    """The type of a value, for messages."""
    if value is None or isinstance(value, np.ndarray):
        return "None" if value is None else "an array"
    name = {"Function": "function", "Builtin": "function"}.get(type(value).__name__, type(value).__name__)
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def product(numbers: Iterable[Any]) -> float:
    """The product of sizes; infinite rather than a large whole number."""
    return math.prod(float(one) for one in numbers)
