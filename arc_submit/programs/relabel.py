"""Hindsight: a program that fails a task is the solution of another task, the one that asks for what the program really does.

Use: `run_programs` runs what a writer wrote, each program in the frame of its view; `relabel` makes a relabelled task of each new
behaviour; `choose_relabelled` takes the best and the worst of them. A relabelled task has the inputs of the asked task and the outputs that
its program gave, in the frame of the view under which the program was written: a learner shows the task and expects the program's text.
Pure functions. Does not know any language, any model or the rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from arc_submit.arc.grid import Grid, grid_id, same_grid
from arc_submit.arc.task import Pair, Task
from arc_submit.arc.views import View, identity_view, parse_view
from arc_submit.programs.interface import Language, ProgramError, Refusal, WrittenProgram

_OF_THE_TEXT = (Refusal.SYNTAX, Refusal.FORBIDDEN)  # a text that is refused so is refused for every input


@dataclass(frozen=True, eq=False)
class RanProgram:
    """A program with what it gave.

    Attributes:
        program: its text in the language's normal form, in the frame of its view.
        size: tokens of the text; 0 where it is no program.
        outputs: one for each train input in the asked task's order, then one for each test input, with the view undone; None where the
            program gives no grid.
        refusal: why it gives none for the first input of its view that it fails on, in one line; empty where it gives all.
        whole: train outputs that are as asked.
        cells: share of right cells over all train outputs; one that is missing or of another size has none.
    """

    program: WrittenProgram
    size: int
    outputs: tuple[Grid | None, ...]
    refusal: str
    whole: int
    cells: float

    @property
    def complete(self) -> tuple[Grid, ...] | None:
        """All outputs; None where one is missing."""
        given = tuple(grid for grid in self.outputs if grid is not None)
        return given if len(given) == len(self.outputs) else None

    @property
    def key(self) -> str:
        """Hash of all outputs; equal for programs that do the same on this task. Empty where an output is missing."""
        outputs = self.complete
        return "" if outputs is None else hashlib.sha256(b";".join(map(grid_id, outputs))).hexdigest()[:24]

    @property
    def order(self) -> tuple[int, float, int, str]:
        """Greater for a better program: whole grids right, share of right cells, then the shorter text."""
        return (self.whole, self.cells, -self.size, self.program.text)


@dataclass(frozen=True, eq=False)
class RelabelledTask:
    """A task and a program that solves it, both in the frame of the program's view.

    Attributes:
        task: the asked task's inputs under the view, with the outputs that the program gave to the train inputs.
        ran: the program.
    """

    task: Task
    ran: RanProgram


def view_of(program: WrittenProgram, task: Task) -> View:
    """The view under which a program was written; the identity for an empty key."""
    return parse_view(program.view) if program.view else identity_view(len(task.train))


def run_programs(language: Language, task: Task, programs: Sequence[WrittenProgram]) -> list[RanProgram]:
    """Run each program on all inputs of the task, in the frame of its view. A text that is written twice is run once.

    A program that fails on one input keeps its outputs for the others.
    """
    done: dict[tuple[str, str], RanProgram] = {}
    ran = []
    for program in programs:
        where = (program.view, program.text)
        if where not in done:
            done[where] = _run(language, task, program)
        one = done[where]
        ran.append(RanProgram(_with_text(program, one.program.text), one.size, one.outputs, one.refusal, one.whole, one.cells))
    return ran


def _run(language: Language, task: Task, program: WrittenProgram) -> RanProgram:
    view = view_of(program, task)
    shown = view.apply_task(task)
    inputs = [*(pair.input for pair in shown.train), *shown.tests]
    try:
        text = language.normal_form(program.text)
    except ProgramError as error:
        return RanProgram(program, 0, (None,) * len(inputs), str(error), 0, 0.0)
    given, refusal = _outputs(language, text, inputs)
    places = [*(view.order.index(i) for i in range(len(task.train))), *range(len(task.train), len(inputs))]
    outputs = [None if (grid := given[i]) is None else view.undo(grid) for i in places]
    whole, cells = score_outputs(task, outputs)
    return RanProgram(_with_text(program, text), language.size(text), tuple(outputs), refusal, whole, cells)


def _outputs(language: Language, text: str, inputs: Sequence[Grid]) -> tuple[list[Grid | None], str]:
    """The output for each input, None where there is none, and why the first missing one is missing."""
    outputs: list[Grid | None] = [None] * len(inputs)
    # Most programs give all outputs, and one call for all inputs is the fastest.
    try:
        return list(language.run(text, inputs)), ""
    except ProgramError as error:
        if len(inputs) == 1 or error.refusal in _OF_THE_TEXT:
            return outputs, str(error)
    refusal = ""
    for i, grid in enumerate(inputs):
        try:
            outputs[i] = language.run(text, [grid])[0]
        except ProgramError as error:
            refusal = refusal or str(error)
            if error.refusal == Refusal.TIME:
                break  # each further input may take as long
    return outputs, refusal


def _with_text(program: WrittenProgram, text: str) -> WrittenProgram:
    return WrittenProgram(text, program.logprob, program.view)


def score_outputs(task: Task, outputs: Sequence[Grid | None]) -> tuple[int, float]:
    """How many train outputs are as asked, and the share of right cells over all of them.

    Args:
        outputs: one for each train input, in the task's order, None where it is missing; what follows is not looked at.
    """
    asked = [pair.output for pair in task.train]
    given = [(a, b) for a, b in zip(asked, outputs, strict=False) if b is not None]
    whole = sum(same_grid(a, b) for a, b in given)
    right = sum(int((a == b).sum()) for a, b in given if a.shape == b.shape)
    return whole, right / sum(grid.size for grid in asked)


def relabel(task: Task, ran: Sequence[RanProgram], seen: AbstractSet[str]) -> list[RelabelledTask]:
    """A relabelled task for each behaviour that is new: of the programs with equal outputs on all inputs, the shortest.

    A program that lacks an output for any input makes none.

    Args:
        seen: keys of the behaviours of earlier rounds.

    Returns:
        relabelled tasks from the worst to the best program.
    """
    shortest: dict[str, RanProgram] = {}
    for one in ran:
        if one.complete is None or one.key in seen:
            continue
        known = shortest.get(one.key)
        if known is None or one.order > known.order:  # equal outputs, so equal scores: the shorter comes after
            shortest[one.key] = one
    return [RelabelledTask(_solved_task(task, one), one) for one in sorted(shortest.values(), key=lambda one: one.order)]


def _solved_task(task: Task, ran: RanProgram) -> Task:
    outputs = ran.complete
    assert outputs is not None
    pairs = tuple(Pair(pair.input, output) for pair, output in zip(task.train, outputs, strict=False))
    return view_of(ran.program, task).apply_task(Task(task.id, pairs, task.tests))


def choose_relabelled(relabelled: Sequence[RelabelledTask], best: int = 25, worst: int = 25) -> list[RelabelledTask]:
    """The best and the worst relabelled tasks, by whole grids right and then by the share of right cells, from the worst to the best."""
    ordered = sorted(relabelled, key=lambda one: one.ran.order)
    if len(ordered) <= best + worst:
        return ordered
    return ordered[:worst] + ordered[len(ordered) - best :]
