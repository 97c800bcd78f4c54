"""Two published rankings of candidates that were searched for under some views of a task and scored under some views.

Both put all sources into one pool. They take log-probabilities by source: `found`, one for each view whose search gave the candidate, and
`scored`, one for each view under which it was scored afterwards. Pure functions; does not know grids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

BASELINE = 3.0  # nats: a view that did not find or score a candidate counts as if it had the probability exp(-BASELINE)

LogProbs = Mapping[str, Sequence[float]]


def count_minus_mean(found: LogProbs, scored: LogProbs, weights: Mapping[str, float]) -> float:
    """The number of views that found a candidate, minus the mean of its negative log-probability over the views that scored it.

    NVARC's selection of 2025. Where a source does not score its candidates, the views that found it stand for those that score.

    Args:
        weights: by source, 1 by default; they multiply the numbers.
    """
    count = math.fsum(weights.get(source, 1.0) * len(values) for source, values in found.items())
    values = [value for source in found for value in (scored.get(source) or found[source])]
    return count + math.fsum(values) / len(values)


def product_with_baseline(found: LogProbs, scored: LogProbs, weights: Mapping[str, float]) -> float:
    """The log of the product of a candidate's probabilities over all views that found or scored it, each relative to exp(-BASELINE).

    The ARChitects' selection of 2024. A view that neither found nor scored the candidate contributes a factor of 1, as a probability of
    exp(-BASELINE) would.

    Args:
        weights: by source, 1 by default; they multiply a source's logs.
    """
    return math.fsum(
        weights.get(source, 1.0) * (BASELINE + value) for source in found for value in (*found[source], *scored.get(source, ()))
    )
