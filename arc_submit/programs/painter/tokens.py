"""Drawings as arrays of six slots a shape, which the network reads and writes: row, column, kind, colour, row2, column2.

A slot that a kind does not have holds what its shape repeats and is never counted. Does not know the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arc_submit.programs.painter.shapes import HAS_COLUMN2, HAS_ROW2, KINDS, Shape

SLOTS = 6
ROW, COLUMN, KIND, COLOUR, ROW2, COLUMN2 = range(SLOTS)
KIND_HAS_ROW2 = np.array([kind in HAS_ROW2 for kind in KINDS])
KIND_HAS_COLUMN2 = np.array([kind in HAS_COLUMN2 for kind in KINDS])


@dataclass(frozen=True)
class Batch:
    """Pictures of one size with the drawings that make them.

    Attributes:
        pictures: int64 (samples, height, width).
        slots: int64 (samples, shapes, SLOTS); rows behind a drawing's last shape hold zeros.
        lengths: int64 (samples,): shapes of each drawing.
    """

    pictures: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def to_slots(shapes: Sequence[Shape]) -> npt.NDArray[np.int64]:
    """The slots of a drawing, int64 (shapes, SLOTS)."""
    rows = [(one.row, one.column, KINDS.index(one.kind), one.colour, one.row2, one.column2) for one in shapes]
    return np.array(rows, dtype=np.int64).reshape(len(rows), SLOTS)


def from_slots(slots: npt.NDArray[np.int64]) -> list[Shape]:
    """The drawing of slots (shapes, SLOTS)."""
    shapes = []
    for row, column, kind, colour, row2, column2 in slots.tolist():
        shapes.append(
            Shape(row, column, KINDS[kind], colour, row2 if KIND_HAS_ROW2[kind] else row, column2 if KIND_HAS_COLUMN2[kind] else column)
        )
    return shapes


def make_batch(pictures: Sequence[npt.NDArray[np.int8]], drawings: Sequence[Sequence[Shape]]) -> Batch:
    """A batch of pictures of one size, each with its drawing."""
    lengths = np.array([len(one) for one in drawings], dtype=np.int64)
    slots = np.zeros((len(drawings), int(lengths.max(initial=0)), SLOTS), dtype=np.int64)
    for i, one in enumerate(drawings):
        slots[i, : len(one)] = to_slots(one)
    return Batch(np.stack(pictures).astype(np.int64), slots, lengths)
