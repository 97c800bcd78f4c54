"""The functions that a program of the Python subset defines: their parameters, their variables and what a call of them does.

Does not know syntax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.meter import Meter


class Frame:
    """The variables of one call, and the frame in which its function was defined."""

    __slots__ = ("outer", "variables")

    def __init__(self, outer: Frame | None):
        self.variables: dict[str, Any] = {}
        self.outer = outer


Expression = Callable[[Frame], Any]


@dataclass(frozen=True)
class Parameters:
    """The parameters of a function.

    Attributes:
        positional: that take arguments by their place.
        named: that keywords may name.
        every: names of all parameters.
        rest: behind *, for further arguments.
        others: behind **, for further keywords.
    """

    positional: tuple[str, ...]
    named: tuple[str, ...]
    every: tuple[str, ...]
    rest: str | None = None
    others: str | None = None

    def variables(self, name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The variables with which a call begins.

        Raises:
            TypeError: naming the function where the arguments do not fit.
        """
        places = self.positional
        variables = dict(defaults)
        variables.update(zip(places, arguments, strict=False))
        if self.rest is not None:
            variables[self.rest] = arguments[len(places) :]
        elif len(arguments) > len(places):
            raise TypeError(f"{name} takes {len(places)} arguments, {len(arguments)} are given")
        others = {}
        for keyword, value in keywords.items():
            if keyword in self.named and keyword not in places[: len(arguments)]:
                variables[keyword] = value
            elif self.others is not None and keyword not in self.named:
                others[keyword] = value
            else:
                raise TypeError(f"{name} does not take the keyword {keyword} here")
        if self.others is not None:
            variables[self.others] = others
        if len(variables) < len(self.every):
            missing = next(one for one in self.every if one not in variables)
            raise TypeError(f"{name} lacks the argument {missing}")
        return variables


class Function:
    """A function of a program: a value that can be called."""

    __slots__ = ("body", "defaults", "frame", "makes_generator", "meter", "name", "parameters")

    def __init__(self, name: str, parameters: Parameters, body: Expression, makes_generator: bool = False):
        self.name, self.parameters, self.body, self.makes_generator = name, parameters, body, makes_generator
        self.meter: Meter
        self.frame: Frame
        self.defaults: dict[str, Any] = {}

    def bind(self, meter: Meter, frame: Frame, defaults: dict[str, Any]) -> Function:
        """The function as a value, in the frame in which its definition is reached."""
        value = Function(self.name, self.parameters, self.body, self.makes_generator)
        value.meter, value.frame, value.defaults = meter, frame, defaults
        return value

    def __repr__(self) -> str:
        return f"<function {self.name}>"  # without an address: messages of Python show it

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        meter, parameters = self.meter, self.parameters
        frame = Frame(self.frame)
        frame.variables = parameters.variables(self.name, arguments, keywords, self.defaults)
        if parameters.rest is not None or parameters.others is not None:
            meter.cells(len(arguments) + len(keywords))
        if self.makes_generator:
            meter.cells(len(frame.variables))
            return self._resumed(self.body(frame))
        self._enter()
        result = self.body(frame)
        meter.depth -= 1
        return result

    def _enter(self) -> None:
        meter = self.meter
        meter.step()
        meter.depth += 1
        if meter.depth > meter.limits.depth:
            raise ProgramError(Refusal.STEPS, f"more than {meter.limits.depth} calls within each other")

    def _resumed(self, values: Iterator[Any]) -> Iterator[Any]:
        """What a generator yields; each resumption is a call."""
        while True:
            self._enter()
            try:
                value = next(values)
            except StopIteration:
                self.meter.depth -= 1
                return
            self.meter.depth -= 1
            yield value
