"""Draws programs from the painter's network for pictures, slot by slot, many at a time with cached keys and values.

Does not know texts, tasks or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arc_submit.arc.grid import Grid
from arc_submit.programs.painter.network import Cache, PainterNetwork, kind_table
from arc_submit.programs.painter.tokens import COLOUR, COLUMN, COLUMN2, KIND, ROW, ROW2, SLOTS

TOP_P = 0.95  # the likeliest values of a slot that together have this probability; the others are never drawn
MAX_SHAPES = 160


@dataclass
class _Draw:
    """Draws values of slots, and adds up the log-probability of each drawing."""

    temperature: float
    generator: torch.Generator
    logprobs: Tensor

    def __call__(self, logits: Tensor, going: Tensor, counted: Tensor | None = None) -> Tensor:
        """A value for each row of logits (drawings, values).

        Args:
            going: index of each row's drawing.
            counted: False where the slot is not part of the drawing.
        """
        scaled, order = (logits / self.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
        scaled = scaled.masked_fill(scaled.cumsum(-1) - scaled >= TOP_P, 0.0)
        place = torch.multinomial(scaled, 1, generator=self.generator)
        value = order.gather(-1, place)
        found = logits.log_softmax(-1).gather(-1, value)[:, 0]
        self.logprobs[going] += found if counted is None else found * counted
        return value[:, 0]


@torch.inference_mode()
def sample_drawings(
    network: PainterNetwork, pictures: Sequence[Grid], count: int, temperature: float, seed: int, max_shapes: int = MAX_SHAPES
) -> list[tuple[npt.NDArray[np.int64], float]]:
    """`count` drawings: slots int64 (shapes, SLOTS), and the natural log of the drawing's probability at temperature 1.

    A drawing that does not end is cut after `max_shapes`. Equal arguments give equal drawings.

    Args:
        pictures: of one size: one for each drawing, or one for all.
    """
    read = network.read(torch.from_numpy(np.stack(pictures).astype(np.int64)))
    height = pictures[0].shape[0]
    cache = Cache()
    draw = _Draw(temperature, torch.Generator().manual_seed(seed), torch.zeros(count))
    going = torch.arange(count)  # the drawings that have not ended
    slots = torch.zeros(count, max_shapes, SLOTS, dtype=torch.long)
    lengths = torch.full((count,), max_shapes)
    for number in range(max_shapes):
        # The shape before and the one that is being drawn: distances are relative, so that counting may begin anywhere.
        window = slots[going, max(0, number - 1) : number + 1]
        first = SLOTS * (window.shape[1] - 1)
        place = window[:, 0, :2] if number else torch.tensor([0, -1]).expand(count, 2)
        row = draw(network.foretell_row(read, network.hidden(read, window, first, cache), place[:, None])[:, 0], going)
        ended = row == height
        if ended.any():
            lengths[going[ended]] = number
            going, row, window, place = (one[~ended] for one in (going, row, window, place))
            _keep(cache, ~ended)
            read = read.rows(~ended)
            if not len(going):
                break
        shape = window[:, -1]
        shape[:, ROW] = row
        hidden = network.hidden(read, window, first + COLUMN, cache)
        shape[:, COLUMN] = draw(network.foretell_along(read, hidden, COLUMN, row[:, None], place[:, 1:])[:, 0], going)
        column = shape[:, COLUMN]
        shape[:, KIND] = draw(network.kind_out(network.hidden(read, window, first + KIND, cache))[:, 0], going)
        shape[:, COLOUR] = draw(network.colour_out(network.hidden(read, window, first + COLOUR, cache))[:, 0], going)
        has_row2, has_column2 = kind_table(shape[:, KIND])
        hidden = network.hidden(read, window, first + ROW2, cache)
        row2 = draw(network.foretell_along(read, hidden, ROW2, column[:, None], row[:, None])[:, 0], going, has_row2)
        shape[:, ROW2] = torch.where(has_row2, row2, row)
        hidden = network.hidden(read, window, first + COLUMN2, cache)
        along = network.foretell_along(read, hidden, COLUMN2, shape[:, ROW2, None], column[:, None])[:, 0]
        shape[:, COLUMN2] = torch.where(has_column2, draw(along, going, has_column2), column)
        slots[going, number] = shape
    return [(slots[i, : int(lengths[i])].numpy(), float(draw.logprobs[i])) for i in range(count)]


def _keep(cache: Cache, rows: Tensor) -> None:
    """Forget the keys and values of drawings that have ended."""
    cache.keys = {layer: one[rows] for layer, one in cache.keys.items()}
    cache.values = {layer: one[rows] for layer, one in cache.values.items()}
