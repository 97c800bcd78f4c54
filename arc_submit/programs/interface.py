"""What the parts of program writing are to one another: a language runs programs, a writer writes them.

The rounds of learning from hindsight (relabel, fine-tune, write again) know languages and writers by these protocols alone. Does not
know any language or any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task


class Refusal(StrEnum):
    """Why a program gives no grids. Each class has its own one-line message."""

    SYNTAX = "syntax"  # the text is no program
    FORBIDDEN = "forbidden"  # the text is a program of a larger language, with a construct or name that ours does not have
    TYPE = "type"  # an operation meets a value of another type
    VALUE = "value"  # an operation cannot work on this value: an index outside, a division by zero
    STEPS = "steps"  # more operations than allowed
    CELLS = "cells"  # more cells (memory) than allowed
    TIME = "time"  # more seconds than allowed
    OUTPUT = "output"  # what came out is no grid of 1..30 rows and columns and values 0..9


class ProgramError(Exception):
    """A program gives no grids. That is a result of running a program, not a fault of ours or of the user's.

    Attributes:
        refusal: the class of the reason.
        message: one line, without the program's text.
    """

    def __init__(self, refusal: Refusal, message: str):
        self.refusal = refusal
        self.message = " ".join(message.split())[:300]
        super().__init__(f"{refusal}: {self.message}")


class Language(Protocol):
    """A language of programs that turn an input grid into an output grid. Deterministic; bounded in steps, cells and seconds."""

    name: str

    def normal_form(self, text: str) -> str:
        """The text that equal programs share: spaces, names of variables and lines without an effect do not count.

        Raises:
            ProgramError: where the text is no program.
        """
        ...

    def size(self, text: str) -> int:
        """Length of a program in tokens of the language; of programs with equal outputs the shortest is kept."""
        ...

    def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
        """The output for each input.

        Raises:
            ProgramError: where the text is no program or any input gives no grid.
        """
        ...


@dataclass(frozen=True)
class WrittenProgram:
    """One program that a writer wrote.

    Attributes:
        text: the program, in the frame of the view.
        logprob: natural log of the probability of the whole text under the writer.
        view: key of the view under which the task was shown; empty for the task as it is.
    """

    text: str
    logprob: float
    view: str = ""


class Writer(Protocol):
    """A model that writes programs for a task."""

    def write(self, task: Task, count: int, temperature: float, seed: int) -> list[WrittenProgram]:
        """`count` programs for the task, drawn at a temperature. Equal arguments and equal weights give equal programs.

        An answer without a program may be left out.

        Raises:
            TimeIsUpError: where no time is left for all of them.
        """
        ...
