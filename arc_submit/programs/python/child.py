"""The child process that runs programs of the Python subset: a JSON line in, a JSON line out, until its input ends.

It bounds its memory, may open no file and write none, and is killed by its parent when it does not answer in time. Does not know tasks.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.ma  # np.unique imports it late, when the child may open no file any more

from arc_submit.arc.grid import COLOURS, MAX_SIDE
from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.functions import RaisedError
from arc_submit.programs.python.input_type import InputType
from arc_submit.programs.python.interpreter import Program
from arc_submit.programs.python.meter import Limits, kind_of
from arc_submit.programs.python.subset import input_of, parse

_STACK = 256 * 2**20
_RECURSION = 40_000  # Python's own, above what the depth of calls allows
_OF_THE_TYPE = (Refusal.TYPE, Refusal.VALUE, Refusal.OUTPUT)  # what a list in place of an array may mend
_FAULTS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, BufferError, ImportError, LookupError, NameError, OSError, RaisedError, RuntimeError),
    *(StopIteration, SystemError, ValueError),
)


def run_program(text: str, inputs: Sequence[Sequence[Sequence[int]]], limits: Limits) -> list[list[list[int]]]:
    """The output grids of a program as nested lists, in the calling process.

    Args:
        inputs: grids as nested lists.

    Raises:
        ProgramError: of any class but TIME.
    """
    tree = parse(text)
    kind = input_of(tree)
    with _refusals():
        program = Program(tree, limits)
    outputs = []
    for number, grid in enumerate(inputs, 1):
        if gc.get_freeze_count():  # in the child alone: a collection is slow where much else is held
            gc.collect()  # a function in a variable of its own frame is a cycle, with all that the frame holds
        try:
            outputs.append(_output(program, kind is InputType.LIST, grid, number))
        except ProgramError as error:
            if kind is not InputType.EITHER or error.refusal not in _OF_THE_TYPE:
                raise
            try:
                outputs.append(_output(program, True, grid, number))
            except ProgramError:
                raise error from None  # of the array, which is what the program was told
    return outputs


def _output(program: Program, as_list: bool, grid: Sequence[Sequence[int]], number: int) -> list[list[int]]:
    value: Any = [list(row) for row in grid] if as_list else np.array(grid, dtype=np.int64)
    with _refusals():
        return _grid(program.run(value), number)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what Python and numpy raise into a ProgramError."""
    try:
        yield
    except RecursionError:
        raise ProgramError(Refusal.STEPS, "calls or values nested too deeply") from None
    except MemoryError as error:
        raise ProgramError(Refusal.CELLS, f"out of memory: {error}") from None
    except (TypeError, AttributeError) as error:
        message = re.sub(r"[\w.]*(?:<locals>\.[\w<>.]+)+\(\)", "the function", str(error))
        raise ProgramError(Refusal.TYPE, message) from None
    except _FAULTS as error:
        name = "Exception" if type(error) is RaisedError else type(error).__name__
        raise ProgramError(Refusal.VALUE, f"{name}: {error}") from None


def _grid(value: Any, number: int) -> list[list[int]]:
    """A program's value as a grid.

    Raises:
        ProgramError: OUTPUT.
    """
    if isinstance(value, list | tuple) and 1 <= len(value) <= MAX_SIDE and all(isinstance(row, list | tuple | np.ndarray) for row in value):
        widths = {len(row) for row in value}
        if len(widths) == 1 and all(isinstance(cell, int | float | np.integer | np.floating | np.bool_) for row in value for cell in row):
            value = np.array([list(row) for row in value])
    if not isinstance(value, np.ndarray):
        raise ProgramError(Refusal.OUTPUT, f"input {number}: {kind_of(value)} is no grid")
    if value.ndim != 2 or not (1 <= value.shape[0] <= MAX_SIDE and 1 <= value.shape[1] <= MAX_SIDE):
        raise ProgramError(
            Refusal.OUTPUT, f"input {number}: an array of shape {value.shape} is no grid of 1 to {MAX_SIDE} rows and columns"
        )
    if not np.all((value >= 0) & (value < COLOURS)) or not np.all(value == np.floor(value)):
        raise ProgramError(Refusal.OUTPUT, f"input {number}: values other than 0 to {COLOURS - 1}")
    return value.astype(int).tolist()  # type: ignore[no-any-return]


def bound_process(memory_mb: int) -> None:
    """Bound the calling process: memory beyond what it holds, no new file, no byte in a file, no core file."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    most = held + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    opened = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened, opened))


_EXAMPLE = """
import numpy as np

def transform(grid):
    marked = np.unique(np.where(grid > 0, grid, 0), return_counts=True)
    return np.rot90(np.pad(np.tile(grid, (2, 1)), 1)) * (len(marked) > 0)
"""


def _serve() -> None:
    limits: Limits | None = None
    for line in sys.stdin:
        job = json.loads(line)
        if limits is None:
            limits = Limits(**job["limits"])
            run_program(_EXAMPLE, [[[1]]], limits)  # what numpy imports late is imported before no file can be opened
            gc.freeze()  # what is there now stays: a collection looks only at what programs make
            bound_process(limits.memory_mb)
            answer: dict[str, Any] = {"ready": True}
        else:
            try:
                answer = {"outputs": run_program(job["text"], job["inputs"], limits)}
            except ProgramError as error:
                answer = {"refusal": error.refusal, "message": error.message}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    sys.setrecursionlimit(_RECURSION)
    # A thread's stack can be chosen: comparing and hashing nested values recurses in C.
    threading.stack_size(_STACK)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()
