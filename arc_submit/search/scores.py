"""The scale of the search's scores: what they say about the probability that an answer is right. Does not import what searches.

The scores of the answers to one test input are those of a conditional logit with one more choice, that none of them is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

# Fitted on training tasks by benchmarks/ensemble.py. The search's rules and weights were made on these tasks too, so that its scores are
# too optimistic for other tasks.
NONE_SCORE = -1.2  # the score, in nats, of "none of the answers is right"
_LARGEST_LOGIT = 50.0  # nats; keeps exp() finite


def odds_of_scores(scores: Iterable[float]) -> list[float]:
    """The odds of each answer, relative to "none of the answers is right"."""
    return [math.exp(max(-_LARGEST_LOGIT, min(_LARGEST_LOGIT, score - NONE_SCORE))) for score in scores]


def best_probability(odds: Sequence[float]) -> float:
    """The probability of the answer with the highest odds; 0 without answers."""
    return max(odds, default=0.0) / (1 + math.fsum(odds))
