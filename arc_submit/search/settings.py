"""What a worker of the search gets, as data."""

from __future__ import annotations

from dataclasses import dataclass

PASSES = 4  # in which tasks are searched: every task once before any task again


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a worker, sent to it as JSON.

    Attributes:
        run: the run directory.
        effort: one of task_search.EFFORTS.
        memory_gb: memory that the worker may take beyond what it holds when it is ready.
        source: the source's name in the predictions.
        niceness: lowers its priority, for cores that it shares with the processes that feed GPUs.
    """

    run: str
    effort: str
    memory_gb: float
    niceness: int = 0
    source: str = "search"
