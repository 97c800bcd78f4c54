"""The pace of a queue: which job to begin next so that the longest is not left for the end and the time is not spent on a few.

With several workers the longest jobs go first, or the last one would run alone while the others idle. But where the time does not
suffice for all, longest first does the fewest. What fits is told by the pace measured so far. Knows nothing about what a job is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from arc_submit.runtime.pool import Job, Share


class Pace:
    """Picks jobs for a pool by their cost and the seconds that a unit of cost has taken so far.

    Args:
        costs: of every part of a job, in any unit.
        deadline: on the monotonic clock.
        share: how many workers there are.
    """

    def __init__(self, costs: Mapping[str, float], deadline: float, share: Share):
        self.costs, self.deadline, self.share = costs, deadline, share
        self.cost, self.seconds = 0.0, 0.0

    def note(self, part: str, seconds: float) -> None:
        """A part has been done in so many seconds."""
        self.cost += self.costs[part]
        self.seconds += seconds

    def pick(self, waiting: Sequence[Job]) -> int:
        """Index of the job to begin next; one of middling cost while nothing has been measured."""
        costs = [sum(self.costs[part] for part in job.parts) for job in waiting]
        if not self.seconds:
            return sorted(range(len(costs)), key=lambda i: (costs[i], i))[len(costs) // 2]
        one = max(0.0, self.deadline - time.monotonic()) * self.cost / self.seconds
        return longest_that_fits(costs, one, one * self.share.workers)


def longest_that_fits(costs: Sequence[float], one: float, capacity: float) -> int:
    """Index of the costliest job among the most jobs that can be done; the cheapest of all where not even that fits.

    Args:
        costs: of the waiting jobs, at least one.
        one: cost that one worker can do in the time that is left: no dearer job can be finished.
        capacity: cost that all workers can do.
    """
    ascending = sorted(range(len(costs)), key=lambda i: (costs[i], i))
    best, total = ascending[0], 0.0
    for i in ascending:
        total += costs[i]
        if total > capacity or costs[i] > one:
            break
        best = i
    return best
