"""Which program of a task is worth a further question: Thompson sampling over the programs that the task has.

A program's chance to lead to a right one is drawn from a Beta distribution around the share of train pairs and cells that it has right,
lowered by each question that was asked about it already. The idea is that of REx (Tang et al. 2024). Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_WEIGHT = 20.0  # how many observations the share of what is right counts for, as in REx


@dataclass(frozen=True)
class Arm:
    """A program that may be asked about.

    Attributes:
        whole: share of the train pairs that it has right.
        cells: share of their cells.
        asked: questions asked about it.
    """

    whole: float
    cells: float
    asked: int

    @property
    def worth(self) -> float:
        """From 0 to 1: whole pairs count as much as cells, of which a wrong program often has most right."""
        return (self.whole + self.cells) / 2


def choose_arms(arms: Sequence[Arm], count: int, rng: np.random.Generator) -> list[int]:
    """Indices of the programs to ask about, one for each question; a program may be chosen several times."""
    asked = [arm.asked for arm in arms]
    chosen = []
    for _ in range(count if arms else 0):
        drawn = [rng.beta(1 + _WEIGHT * arm.worth, 1 + _WEIGHT * (1 - arm.worth) + n) for arm, n in zip(arms, asked, strict=True)]
        best = int(np.argmax(drawn))
        asked[best] += 1
        chosen.append(best)
    return chosen
