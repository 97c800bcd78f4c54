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
from arc_submit.programs.interface import Language, ProgramError, WrittenProgram


@dataclass(frozen=True, eq=False)
class RanProgram:
    """A program with what it gave.

    Attributes:
        program: its text in the language's normal form, in the frame of its view.
        size: tokens of the text.
        outputs: one for each train input in the asked task's order, then one for each test input, with the view undone; None where the
            program gives no grids.
        refusal: why it gives none, in one line; empty where it gives grids.
        whole: train outputs that are as asked.
        cells: share of right cells over all train outputs; an output of another size has none.
    """

    program: WrittenProgram
    size: int
    outputs: tuple[Grid, ...] | None
    refusal: str
    whole: int
    cells: float

    @property
    def key(self) -> str:
        """Hash of all outputs; equal for programs that do the same on this task. Empty for a program without outputs."""
        if self.outputs is None:
            return ""
        return hashlib.sha256(b";".join(map(grid_id, self.outputs))).hexdigest()[:24]

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
    """Run each program on all inputs of the task, in the frame of its view. A text that is written twice is run once."""
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
    try:
        text = language.normal_form(program.text)
        given = language.run(text, [*(pair.input for pair in shown.train), *shown.tests])
    except ProgramError as error:
        return RanProgram(program, 0, None, str(error), 0, 0.0)
    outputs: list[Grid] = [view.undo(given[view.order.index(i)]) for i in range(len(task.train))]
    outputs += [view.undo(grid) for grid in given[len(task.train) :]]
    whole, cells = score_outputs(task, outputs)
    return RanProgram(_with_text(program, text), language.size(text), tuple(outputs), "", whole, cells)


def _with_text(program: WrittenProgram, text: str) -> WrittenProgram:
    return WrittenProgram(text, program.logprob, program.view)


def score_outputs(task: Task, outputs: Sequence[Grid]) -> tuple[int, float]:
    """How many train outputs are as asked, and the share of right cells over all of them.

    Args:
        outputs: one for each train input, in the task's order; what follows is not looked at.
    """
    asked = [pair.output for pair in task.train]
    whole = sum(map(same_grid, asked, outputs))
    right = sum(int((a == b).sum()) for a, b in zip(asked, outputs, strict=False) if a.shape == b.shape)
    return whole, right / sum(grid.size for grid in asked)


def relabel(task: Task, ran: Sequence[RanProgram], seen: AbstractSet[str]) -> list[RelabelledTask]:
    """A relabelled task for each behaviour that is new: of the programs with equal outputs on all inputs, the shortest.

    Args:
        seen: keys of the behaviours of earlier rounds.

    Returns:
        relabelled tasks from the worst to the best program.
    """
    shortest: dict[str, RanProgram] = {}
    for one in ran:
        if one.outputs is None or one.key in seen:
            continue
        known = shortest.get(one.key)
        if known is None or one.order > known.order:  # equal outputs, so equal scores: the shorter comes after
            shortest[one.key] = one
    return [RelabelledTask(_solved_task(task, one), one) for one in sorted(shortest.values(), key=lambda one: one.order)]


def _solved_task(task: Task, ran: RanProgram) -> Task:
    assert ran.outputs is not None
    pairs = tuple(Pair(pair.input, output) for pair, output in zip(task.train, ran.outputs, strict=False))
    return view_of(ran.program, task).apply_task(Task(task.id, pairs, task.tests))


def choose_relabelled(relabelled: Sequence[RelabelledTask], best: int = 25, worst: int = 25) -> list[RelabelledTask]:
    """The best and the worst relabelled tasks, by whole grids right and then by the share of right cells, from the worst to the best."""
    ordered = sorted(relabelled, key=lambda one: one.ran.order)
    if len(ordered) <= best + worst:
        return ordered
    return ordered[:worst] + ordered[len(ordered) - best :]
