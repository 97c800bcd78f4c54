"""Bradley-Terry: one ranking from comparisons of two at a time.

Each candidate has a strength, and wins against another with the probability strength / (strength + other's strength) (Bradley and Terry,
1952). The strengths that make the comparisons most probable are found by the iteration of Hunter, "MM algorithms for generalized
Bradley-Terry models", Annals of Statistics 32 (2004): each step raises the likelihood, whatever it starts from. A pure function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from arc_submit.errors import DataError

_DRAWS = 0.1  # comparisons won and lost against an opponent of strength 1: one that never lost would else be infinitely strong


def strengths(wins: Sequence[Sequence[float]], tolerance: float = 1e-9, most_steps: int = 10_000) -> list[float]:
    """The natural logs of the candidates' strengths, in their order.

    Args:
        wins: square; wins[i][j] is how often i was preferred to j, a sum of probabilities where the judge gives such.
        tolerance: the iteration ends where no strength changes by more than this, in nats; after `most_steps` in any case.

    Raises:
        DataError: where the table is not square, or an entry no finite number of at least 0.
    """
    count = len(wins)
    if any(len(row) != count for row in wins):
        raise DataError(f"comparisons of {count} candidates: the table is not square")
    if any(not 0 <= value < math.inf for row in wins for value in row):
        raise DataError(f"comparisons of {count} candidates: an entry is no number of at least 0")
    won = [math.fsum([_DRAWS, *(wins[i][j] for j in range(count) if j != i)]) for i in range(count)]
    met = [[wins[i][j] + wins[j][i] if j != i else 0.0 for j in range(count)] for i in range(count)]
    now = [1.0] * count
    for _ in range(most_steps):
        # All at once from the strengths before, so that the order of the candidates leaves no trace.
        after = [
            won[i] / math.fsum([2 * _DRAWS / (now[i] + 1), *(met[i][j] / (now[i] + now[j]) for j in range(count) if j != i)])
            for i in range(count)
        ]
        change = max((abs(math.log(b / a)) for a, b in zip(now, after, strict=True)), default=0.0)
        now = after
        if change <= tolerance:
            break
    return [math.log(value) for value in now]
