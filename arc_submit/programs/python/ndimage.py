"""The functions of scipy.ndimage that the Python subset has, for arrays of one to three axes, each counted by a meter.

Written here, so that programs need no scipy. Does not know syntax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.meter import Meter, kind_of

_MOST_AXES = 3
_MOST_CELLS = 100_000
_WIDEST_STRUCTURE = 9

Bits = NDArray[np.bool_]


def make_functions(meter: Meter) -> Mapping[str, Callable[..., Any]]:
    """The functions by name."""

    def array_of(value: Any) -> NDArray[Any]:
        """A value as an array of few axes and cells."""
        if isinstance(value, list | tuple):
            meter.cells(meter.weight(value))
        elif type(value) is not np.ndarray:
            raise TypeError(f"an array is needed, not {kind_of(value)}")
        array: NDArray[Any] = meter.made(np.asarray(value))
        if not 1 <= array.ndim <= _MOST_AXES:
            raise ProgramError(Refusal.VALUE, f"an array of {array.ndim} axes, 1 to {_MOST_AXES} are allowed")
        if array.size > _MOST_CELLS:
            raise ProgramError(Refusal.CELLS, f"an array of {array.size} cells, at most {_MOST_CELLS} are allowed")
        meter.step(array.size + 1)
        return array

    def structure_of(value: Any, axes: int, widest: int) -> Bits:
        structure: Bits = _cross(axes, 1) if value is None else array_of(value) != 0
        if structure.ndim != axes or any(side % 2 == 0 or side > widest for side in structure.shape):
            raise ProgramError(Refusal.VALUE, f"a structure of shape {structure.shape} is not part of the language")
        return structure

    def near_of(value: Any, array: NDArray[Any]) -> Bits:
        """A structure that says which cells are adjacent."""
        near = structure_of(value, array.ndim, 3)
        meter.step(array.size * int(near.sum()) // 4)
        if min(near.shape) < 3 or not np.array_equal(near, np.flip(near)):
            raise ValueError("a structure of adjacent cells has 3 of them along each axis and is symmetric about its centre")
        return near

    def label(input: Any, structure: Any = None) -> tuple[NDArray[np.int32], int]:
        array = array_of(input)
        return _label(array != 0, near_of(structure, array))

    def find_objects(input: Any, max_label: int = 0) -> list[tuple[slice, ...] | None]:
        array = array_of(input)
        if array.dtype.kind not in "iu":
            raise TypeError("find_objects needs whole numbers")
        count = max_label if max_label > 0 else max(int(array.max(initial=0)), 0)
        meter.cells(count)
        cells: dict[int, list[NDArray[Any]]] = {}
        for cell in np.argwhere(array > 0):
            cells.setdefault(int(array[tuple(cell)]), []).append(cell)
        return [_box(cells[number]) if number in cells else None for number in range(1, count + 1)]

    def binary_fill_holes(input: Any, structure: Any = None) -> Bits:
        array = array_of(input)
        return _filled(array != 0, near_of(structure, array))

    def grown(array: Bits, near: Bits, iterations: int, mask: Bits | None, border: bool) -> Bits:
        """A dilation; an erosion is that of what is not there."""
        offsets = list(np.argwhere(near) - np.array(near.shape) // 2)
        left = iterations if iterations > 0 else array.size + 1
        while left > 0:
            meter.step(1 + array.size * len(offsets) // 64)
            new = np.zeros_like(array)
            for offset in offsets:
                new |= _shifted(array, offset, border)
            if mask is not None:
                new = np.where(mask, new, array)
            if np.array_equal(new, array):
                break
            array, left = new, left - 1
        return array

    def dilation(input: Any, structure: Any = None, iterations: int = 1, mask: Any = None, border_value: Any = 0) -> Bits:
        array = array_of(input) != 0
        chosen = None if mask is None else array_of(mask) != 0
        return grown(array, structure_of(structure, array.ndim, _WIDEST_STRUCTURE), iterations, chosen, bool(border_value))

    def erosion(input: Any, structure: Any = None, iterations: int = 1, mask: Any = None, border_value: Any = 0) -> Bits:
        array = array_of(input) != 0
        near = np.flip(structure_of(structure, array.ndim, _WIDEST_STRUCTURE))
        chosen = None if mask is None else array_of(mask) != 0
        return ~grown(~array, near, iterations, chosen, not border_value)

    def opening(input: Any, structure: Any = None, iterations: int = 1) -> Bits:
        return dilation(erosion(input, structure, iterations), structure, iterations)

    def closing(input: Any, structure: Any = None, iterations: int = 1) -> Bits:
        return erosion(dilation(input, structure, iterations), structure, iterations)

    def structure(rank: int, connectivity: int) -> Bits:
        if not 1 <= rank <= _MOST_AXES:
            raise ProgramError(Refusal.VALUE, f"a structure of {rank} axes, 1 to {_MOST_AXES} are allowed")
        return _cross(rank, max(1, connectivity))

    return {
        "binary_closing": closing,
        "binary_dilation": dilation,
        "binary_erosion": erosion,
        "binary_fill_holes": binary_fill_holes,
        "binary_opening": opening,
        "find_objects": find_objects,
        "generate_binary_structure": structure,
        "label": label,
    }


def _cross(axes: int, connectivity: int) -> Bits:
    """The cells that differ from the centre of a block of three along each axis in so many axes at most."""
    distance = np.abs(np.indices([3] * axes) - 1).sum(axis=0)
    cross: Bits = distance <= connectivity
    return cross


def _flat_steps(near: Bits, shape: tuple[int, ...]) -> list[int]:
    """Adjacent cells as differences of places in an array of a shape that is read row by row."""
    sides = np.cumprod([1, *shape[:0:-1]])[::-1]
    return [int(step) for step in (np.argwhere(near) - 1) @ sides if step]


def _label(there: Bits, near: Bits) -> tuple[NDArray[np.int32], int]:
    """Connected parts, numbered from 1 by their first cell, and how many there are."""
    padded = np.pad(there, 1)
    steps, free, labels, count = _flat_steps(near, padded.shape), padded.ravel().tolist(), [0] * padded.size, 0
    for start in np.flatnonzero(padded).tolist():
        if free[start]:
            count += 1
            for place in _reached(free, [start], steps):
                labels[place] = count
    numbers = np.array(labels, np.int32).reshape(padded.shape)
    return numbers[(slice(1, -1),) * there.ndim].copy(), count


def _filled(there: Bits, near: Bits) -> Bits:
    """All cells but the empty ones that are connected to the outside."""
    outside = np.pad(np.pad(~there, 1, constant_values=True), 1, constant_values=False)  # the last ring ends the search
    free = outside.ravel().tolist()
    steps = _flat_steps(near, outside.shape)
    reached = np.zeros(outside.size, bool)
    ring = np.pad(np.pad(np.zeros_like(there), 1, constant_values=True), 1, constant_values=False)
    reached[_reached(free, np.flatnonzero(ring).tolist(), steps)] = True
    filled: Bits = ~reached.reshape(outside.shape)[(slice(2, -2),) * there.ndim]
    return filled


def _reached(free: list[bool], starts: list[int], steps: list[int]) -> list[int]:
    """The free places that are connected to some of them, with these; they are free no more."""
    reached = list(starts)
    for start in starts:
        free[start] = False
    for place in reached:  # which grows
        for step in steps:
            if free[place + step]:
                free[place + step] = False
                reached.append(place + step)
    return reached


def _box(cells: list[NDArray[Any]]) -> tuple[slice, ...]:
    first, last = np.min(cells, axis=0), np.max(cells, axis=0)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))


def _shifted(array: Bits, offset: NDArray[Any], border: bool) -> Bits:
    """An array moved by an offset; what comes from outside is `border`."""
    width = int(np.abs(offset).max(initial=0))
    padded = np.pad(array, width, constant_values=border)
    return padded[tuple(slice(width - by, width - by + side) for by, side in zip(offset.tolist(), array.shape, strict=True))]
