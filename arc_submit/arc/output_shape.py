"""How large a task's output can be: a guess from the train pairs alone, with its reason.

Used to bound the tokens an answer may take and to make a fallback answer. Knows nothing about models.
"""

from __future__ import annotations

from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Task


def expected_output_shape(task: Task, test: Grid) -> tuple[tuple[int, int] | None, str]:
    """The (height, width) that every train pair agrees on for this test input, or None, with the reason."""
    pairs = [(pair.input.shape, pair.output.shape) for pair in task.train]
    if all(i == o for i, o in pairs):
        return (test.shape[0], test.shape[1]), "every train output has its input's size"
    if len({o for _, o in pairs}) == 1 and len(pairs) > 1:
        height, width = pairs[0][1]
        return (height, width), "every train output has the same size"
    shape = []
    for axis in (0, 1):
        i0, o0 = pairs[0][0][axis], pairs[0][1][axis]
        if any(i[axis] * o0 != o[axis] * i0 for i, o in pairs) or test.shape[axis] * o0 % i0:
            return None, "the train outputs follow no simple rule of size"
        shape.append(test.shape[axis] * o0 // i0)
    if max(shape) > MAX_SIDE or min(shape) < 1:
        return None, "the rule of size would leave the limits"
    return (shape[0], shape[1]), "every train output is its input's size times a constant"


def largest_output_shape(task: Task, test: Grid) -> tuple[tuple[int, int], str]:
    """A (height, width) that the output should not exceed on either side, with the reason.

    The expected size where the train pairs agree on one; else the larger of every train output and the test input on each side.
    """
    shape, reason = expected_output_shape(task, test)
    if shape is not None:
        return shape, reason
    height = max([test.shape[0], *(pair.output.shape[0] for pair in task.train)])
    width = max([test.shape[1], *(pair.output.shape[1] for pair in task.train)])
    return (height, width), f"{reason}: the largest of the train outputs and the test input"
