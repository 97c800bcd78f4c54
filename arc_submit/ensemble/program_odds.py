"""The odds of answers that programs give: how often a program that reproduces so many train pairs is right on the test.

Does not know who wrote a program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# The probability that a program which reproduces all of 1, 2, or 3 and more train pairs is right for the test input. A public report
# measures 33, 51 and 63 % for a poor language on held-out pairs, and nearly 100 % for a rich one; nothing is measured here yet, so that the
# low figures stand (docs/ensemble.md).
RIGHT = {1: 0.33, 2: 0.51, 3: 0.63}
PARTLY_RIGHT = 0.05  # of programs that reproduce some of the pairs, all together, times the best share of pairs
_ALONE = 1.0  # a weight added for answers that no program gave: a single program that is partly right is not certain of its share

Fits = tuple[tuple[int, int], ...]


def accuracy(fits: Fits) -> float:
    """The sum of the shares of train pairs that some programs reproduce: the vote of their common answer."""
    return math.fsum(whole / pairs for whole, pairs in fits if pairs)


def program_odds(answers: Sequence[Fits]) -> list[float]:
    """The odds of each distinct answer, relative to "none of them is right".

    Programs that reproduce all pairs share the probability of RIGHT by their number; the others share what PARTLY_RIGHT leaves them.

    Args:
        answers: of each answer, for every program that gives it, the train pairs that it reproduces and those that there are.
    """
    full = [float(sum(0 < pairs == whole for whole, pairs in fits)) for fits in answers]
    pairs = max((pairs for fits in answers for _, pairs in fits), default=0)
    right = RIGHT[min(pairs, max(RIGHT))] if any(full) else 0.0
    partly = [accuracy(tuple(one for one in fits if one[0] < one[1])) for fits in answers]
    best = max((whole / pairs for fits in answers for whole, pairs in fits if 0 < whole < pairs), default=0.0)
    rest = (1 - right) * PARTLY_RIGHT * best
    total_full, total_partly = math.fsum(full), math.fsum(partly) + _ALONE
    probabilities = [
        (right * one / total_full if total_full else 0.0) + rest * other / total_partly for one, other in zip(full, partly, strict=True)
    ]
    none = 1 - math.fsum(probabilities)
    return [value / none for value in probabilities]
