"""Grids: conversion and validation between nested lists and arrays.

A grid is a read-only int8 array of shape (height, width), each side 1..30, values 0..9. Does not know tasks.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from arc_submit.errors import DataError

Grid = npt.NDArray[np.int8]

MAX_SIDE = 30
COLOURS = 10


def make_grid(value: Any, where: str = "grid") -> Grid:
    """Check a nested list (or an integer array) and return it as a grid.

    Args:
        value: from a JSON file: a list of equally long lists of integers 0..9.
        where: the place of the value in an error, for example "a.json: task 007bbfb7: train[0].input".

    Raises:
        DataError: naming `where`, the row and the column of the first fault.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 2 or value.dtype.kind not in "iu":
            raise DataError(f"{where}: an array of shape {value.shape} and type {value.dtype} is not a grid of integers")
        value = value.tolist()
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: a grid is a non-empty list of rows, not {_describe(value)}")
    if len(value) > MAX_SIDE:
        raise DataError(f"{where}: {len(value)} rows, a grid has at most {MAX_SIDE}")
    for i, row in enumerate(value):
        if not isinstance(row, list) or not row:
            raise DataError(f"{where}: row {i} is {_describe(row)}, not a non-empty list of cells")
        if len(row) > MAX_SIDE:
            raise DataError(f"{where}: row {i} has {len(row)} cells, at most {MAX_SIDE} are allowed")
        if len(row) != len(value[0]):
            raise DataError(f"{where}: row {i} has {len(row)} cells and row 0 has {len(value[0])}: a ragged grid")
        for j, cell in enumerate(row):
            # bool is an int to Python, but true and false in a file are not colours.
            if not isinstance(cell, int) or isinstance(cell, bool) or not 0 <= cell < COLOURS:
                raise DataError(f"{where}: row {i}, column {j} is {_describe(cell)}, not an integer 0..{COLOURS - 1}")
    grid = np.array(value, dtype=np.int8)
    grid.flags.writeable = False
    return grid


def frozen(array: npt.NDArray[Any]) -> Grid:
    """A contiguous, read-only int8 copy of an array that is known to hold a grid; nothing is checked."""
    grid = np.array(array, dtype=np.int8, order="C")
    grid.flags.writeable = False
    return grid


def grid_to_lists(grid: Grid) -> list[list[int]]:
    """Nested lists of Python integers, as in the JSON files."""
    rows: list[list[int]] = grid.tolist()
    return rows


def same_grid(a: Grid | None, b: Grid | None) -> bool:
    """True where both are grids of one shape with the same cells."""
    return a is not None and b is not None and a.shape == b.shape and bool((a == b).all())


def grid_id(grid: Grid) -> bytes:
    """A hashable value, equal exactly for equal grids."""
    return bytes(grid.shape) + grid.tobytes()


def _describe(value: Any) -> str:
    # reprlib: a value from a broken file can be too deep for repr, or megabytes long.
    text = reprlib.repr(value)
    return f"{text[:37]}..." if len(text) > 40 else text
