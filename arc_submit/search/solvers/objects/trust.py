"""Trust: how the cost of a rule about objects grows when the train pairs do not foretell one another."""

from __future__ import annotations

NAME = "objects"


def cost_of(complexity: float, held_out: int, pairs: int) -> float:
    """The cost of a rule in tenths of a step, as ranked with programs.

    Args:
        complexity: what its parts cost together.
        held_out: how many train pairs the rule that the other pairs teach reproduces.
        pairs: how many train pairs there are.
    """
    doubt = 1 - held_out / pairs
    # A simple rule may be right although each pair shows another side of it; a long one that no pair confirms hardly ever is.
    return 8.0 + complexity * (1 + 2 * doubt) + 8.0 * doubt
