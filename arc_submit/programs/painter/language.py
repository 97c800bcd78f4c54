"""The painter's language for the rounds: a program draws its shapes on a blank grid of its input's size.

Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence

from arc_submit.arc.grid import Grid, frozen
from arc_submit.programs.painter.shapes import draw, normal_shapes, parse_drawing, print_drawing


class PainterLanguage:
    """A Language (arc_submit.programs.interface). A program has at most MAX_SHAPES lines, which bounds its steps, cells and time."""

    name = "painter"

    def normal_form(self, text: str) -> str:
        """Without lines that change nothing, in reading order (see `normal_shapes`).

        Raises:
            ProgramError: where the text is no drawing.
        """
        return print_drawing(normal_shapes(parse_drawing(text)))

    def size(self, text: str) -> int:
        """Tokens: words, and the end of each line."""
        return sum(one.tokens for one in parse_drawing(text))

    def run(self, text: str, inputs: Sequence[Grid]) -> list[Grid]:
        """The picture for each input; of the input the size alone counts.

        Raises:
            ProgramError: where the text is no drawing, or a shape leaves the grid.
        """
        shapes = parse_drawing(text)
        return [frozen(draw(shapes, *grid.shape)) for grid in inputs]
