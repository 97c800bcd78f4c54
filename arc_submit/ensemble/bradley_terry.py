"""Bradley-Terry: one ranking from comparisons of two at a time.

Each candidate has a strength, and wins against another with the probability strength / (strength + other's strength) (Bradley and Terry,
1952). The strengths that make the comparisons most probable are found by the iteration of Hunter, "MM algorithms for generalized
Bradley-Terry models", Annals of Statistics 32 (2004): each step raises the likelihood, whatever it starts from. A pure function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from arc_submit.errors import DataError

_DRAWS = 0.1  # comparisons that each is taken to have won against each other: one that never lost would else be infinitely strong


def strengths(wins: Sequence[Sequence[float]], tolerance: float = 1e-9, most_steps: int = 10_000) -> list[float]:
    """The natural logs of the candidates' strengths, in their order; their mean is 0.

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
    if count < 2:
        return [0.0] * count
    others = [[j for j in range(count) if j != i] for i in range(count)]
    won = [math.fsum(wins[i][j] + _DRAWS for j in others[i]) for i in range(count)]
    met = [[wins[i][j] + wins[j][i] + 2 * _DRAWS for j in range(count)] for i in range(count)]
    now = [0.0] * count
    for _ in range(most_steps):
        # All at once from the strengths before, and with exact sums, so that the order of the candidates leaves no trace.
        power = [math.exp(value) for value in now]
        after = [math.log(won[i]) - math.log(math.fsum(met[i][j] / (power[i] + power[j]) for j in others[i])) for i in range(count)]
        mean = math.fsum(after) / count
        after = [value - mean for value in after]
        change = max(abs(a - b) for a, b in zip(now, after, strict=True))
        now = after
        if change <= tolerance:
            break
    return now
