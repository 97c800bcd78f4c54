"""Trust: the cost of a rule about objects grows when the train pairs do not predict one another."""

from __future__ import annotations

NAME = "objects"


def cost_of(complexity: float, predicted: int, pairs: int) -> float:
    """The cost of a rule in tenths of a step, comparable with that of programs.

    Args:
        complexity: the sum of the costs of its parts.
        predicted: the number of train pairs that the rule trained on the other pairs reproduces.
        pairs: the number of train pairs.
    """
    doubt = 1 - predicted / pairs
    # A simple rule may be right although each pair shows another aspect of it; a long rule that no pair confirms is rarely right.
    return 8.0 + complexity * (1 + 2 * doubt) + 8.0 * doubt
