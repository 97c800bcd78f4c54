"""The shape of a task's output, estimated from the train pairs, with a reason.

Bounds the tokens of an answer and gives fallback answers their size. Does not know models.
"""

from __future__ import annotations

from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Task


def expected_output_shape(task: Task, test: Grid) -> tuple[tuple[int, int] | None, str]:
    """The (height, width) that every train pair implies for this test input, or None, with a reason."""
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
    """A (height, width) that the output should not exceed on either side, with a reason.

    The expected shape where there is one; else on each side the maximum of all train outputs and the test input.
    """
    shape, reason = expected_output_shape(task, test)
    if shape is not None:
        return shape, reason
    height = max([test.shape[0], *(pair.output.shape[0] for pair in task.train)])
    width = max([test.shape[1], *(pair.output.shape[1] for pair in task.train)])
    return (height, width), f"{reason}: the largest of the train outputs and the test input"
