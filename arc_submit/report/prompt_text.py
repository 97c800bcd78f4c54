"""A prompt for people: roles as headings, words as they are, grids as grids in colours, whatever the tokenizer and the grid encoder write.

For terminals and notebooks. Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence

from arc_submit.arc.grid import Grid
from arc_submit.language.prompts import Turn
from arc_submit.report.html_page import PALETTE

_BOLD, _RESET = "\x1b[1m", "\x1b[0m"


def show_turns(turns: Sequence[Turn], colours: bool = True) -> str:
    """The turns of a chat as text of several lines.

    Args:
        colours: draw cells with escape sequences for a terminal's colours; otherwise as digits.
    """
    lines: list[str] = []
    for turn in turns:
        lines.append(f"{_BOLD}[{turn.role}]{_RESET}" if colours else f"[{turn.role}]")
        for part in turn.parts:
            lines += part.strip("\n").split("\n") if isinstance(part, str) else show_grid(part, colours)
    return "\n".join(lines)


def show_grid(grid: Grid, colours: bool = True) -> list[str]:
    """A grid's rows, each cell two characters wide."""
    if not colours:
        return [" ".join(map(str, row)) for row in grid.tolist()]
    return ["".join(_cell(colour) for colour in row) + _RESET for row in grid.tolist()]


def _cell(colour: int) -> str:
    red, green, blue = (int(PALETTE[colour][i : i + 2], 16) for i in (1, 3, 5))
    ink = 0 if red + green + blue > 380 else 255
    return f"\x1b[48;2;{red};{green};{blue}m\x1b[38;2;{ink};{ink};{ink}m{colour} "
