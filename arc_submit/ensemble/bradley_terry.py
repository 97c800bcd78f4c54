"""Bradley-Terry: one ranking from comparisons of two candidates at a time.

Each candidate has a strength and wins against another with probability strength / (strength + other's strength) (Bradley and Terry, 1952).
The maximum-likelihood strengths are found by the iteration of Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of
Statistics 32 (2004): each step raises the likelihood from any start. A pure function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from arc_submit.errors import DataError

# Added to the wins of each candidate against each other one: without them a candidate that never lost has infinite strength.
_PSEUDO_WINS = 0.1


def strengths(wins: Sequence[Sequence[float]], tolerance: float = 1e-9, max_steps: int = 10_000) -> list[float]:
    """The natural logs of the candidates' strengths, in their order; their mean is 0.

    Args:
        wins: square; wins[i][j] is how often i was preferred to j, a sum of probabilities where the judge gives probabilities.
        tolerance: the iteration ends when no log-strength changes by more than this, in nats, and after `max_steps` in any case.

    Raises:
        DataError: where the table is not square, or an entry is not a finite number of at least 0.
    """
    count = len(wins)
    if any(len(row) != count for row in wins):
        raise DataError(f"comparisons of {count} candidates: the table is not square")
    if any(not 0 <= value < math.inf for row in wins for value in row):
        raise DataError(f"comparisons of {count} candidates: an entry is no number of at least 0")
    if count < 2:
        return [0.0] * count
    others = [[j for j in range(count) if j != i] for i in range(count)]
    won = [math.fsum(wins[i][j] + _PSEUDO_WINS for j in others[i]) for i in range(count)]
    played = [[wins[i][j] + wins[j][i] + 2 * _PSEUDO_WINS for j in range(count)] for i in range(count)]
    current = [0.0] * count
    for _ in range(max_steps):
        # All strengths are updated together and the sums are exact, so that the order of the candidates does not matter.
        power = [math.exp(value) for value in current]
        after = [math.log(won[i]) - math.log(math.fsum(played[i][j] / (power[i] + power[j]) for j in others[i])) for i in range(count)]
        mean = math.fsum(after) / count
        after = [value - mean for value in after]
        change = max(abs(a - b) for a, b in zip(current, after, strict=True))
        current = after
        if change <= tolerance:
            break
    return current
