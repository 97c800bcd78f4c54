"""Reading and assigning the items of the containers and arrays of the Python subset, counted by a meter. Does not know syntax."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from arc_submit.programs.python.arrays import guard_index
from arc_submit.programs.python.meter import MAPPINGS, Meter, kind_of


def get_item(meter: Meter, value: Any, index: Any) -> Any:
    """`value[index]`.

    Raises:
        ProgramError: where a limit is exceeded.
        Exception: what Python and numpy raise.
    """
    kind = type(value)
    if kind is list or kind is tuple:
        item = value[index]
        return meter.made(item) if type(index) is slice else item
    if kind is np.ndarray:
        if type(index) is not int:
            guard_index(meter, value, index)
        item = value[index]
        return meter.made(item) if type(item) is np.ndarray else item
    if kind in MAPPINGS or kind is str or kind is range:
        return value[index]
    if kind is deque:
        meter.step(1 + len(value) // 256)
        return value[index]
    raise TypeError(f"{kind_of(value)} has no items")


def set_item(meter: Meter, value: Any, index: Any, given: Any) -> None:
    """`value[index] = given`.

    Raises:
        ProgramError: where a limit is exceeded.
        Exception: what Python and numpy raise.
    """
    kind = type(value)
    if kind is np.ndarray:
        if isinstance(given, list | tuple):
            meter.cells(meter.weight(given))
        meter.step(1 + (value.size // 256 if type(index) is not tuple else 0))
        value[index] = given
    elif kind is list:
        value[index] = meter.made(list(meter.items(given))) if type(index) is slice else given
    elif kind in MAPPINGS:
        meter.cells(1)
        value[index] = given
    elif kind is deque:
        meter.step(1 + len(value) // 256)
        value[index] = given
    else:
        raise TypeError(f"items of {kind_of(value)} cannot be assigned")
