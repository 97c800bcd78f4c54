"""Passes: every task gets a little work before any task gets more, so that work that is cut early has answered every task.

A job is one pass of one task; its result says whether a further pass follows. The passes of all tasks wait in one queue: an earlier pass
before a later one, and within a pass a cheaper task before a more expensive one. Another worker must do the earlier passes of a task again,
so a worker goes on with its own tasks where it can. Does not know what a pass does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from arc_submit.workers.supervisor import Event, Job


class _Waiting(NamedTuple):
    """A task that waits for a pass; the order of the fields is the order of work."""

    retried: bool  # a lost job that comes back behind all others
    number: int  # of the pass, from 0
    cost: float
    task_id: str


class PassQueue:
    """A job source of passes, an arc_submit.workers.supervisor.JobSource. The payload of a job has the number of the pass as "pass".

    Args:
        costs: relative cost of each task that has work left.
        numbers: the next pass of a task, from 0; 0 for a task that is not in it.
        until: from then on no job begins.
    """

    def __init__(self, costs: Mapping[str, float], numbers: Mapping[str, int] | None = None, until: float = math.inf):
        self._costs, self._until = costs, until
        self._numbers = dict.fromkeys(costs, 0) | dict(numbers or {})
        self._failures: dict[str, int] = {}
        self._holders: dict[str, int] = {}  # the worker that has done the passes of a task so far
        self._spent: dict[str, float] = {}  # its seconds for them
        self._running: dict[str, Job] = {}
        self._first: list[str] = []  # tasks of lost jobs, before all others
        self._waiting: list[_Waiting] = []
        for task_id in costs:
            self._push(task_id)

    def next_job(self, workers: int, now: float, worker: int = 0) -> Job | None:
        if not self.available(workers, now):
            return None
        if self._first:
            task_id = self._first.pop(0)
        else:
            chosen = min(self._waiting, key=lambda one: (one.retried, one.number, self._is_of_another(one.task_id, worker), one))
            self._waiting.remove(chosen)
            task_id = chosen.task_id
        if self._is_of_another(task_id, worker):
            self._forget(task_id)
        # The time limit holds for all passes of a task in one worker: one that takes a task over begins with its first pass.
        job = Job((task_id,), self._failures.get(task_id, 0), {"pass": self._numbers[task_id]}, spent=self._spent.get(task_id, 0.0))
        self._running[task_id] = job
        self._holders[task_id] = worker
        return job

    def available(self, workers: int, now: float) -> int:
        return len(self._first) + len(self._waiting) if now < self._until else 0

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        for job in jobs:
            for task_id in job.task_ids:
                self._failures[task_id] = job.failures
                self._forget_worker(self._holders.get(task_id))
                if first:
                    self._first.append(task_id)
                else:
                    self._push(task_id, retried=True)

    def on_event(self, event: Event) -> None:
        """Let the tasks of a done job wait for their next pass, where one follows."""
        if event.kind != "done":
            return
        for task_id in event.task_ids:
            following = next_pass(event.result.get("tasks", {}).get(task_id, {}))
            job = self._running.pop(task_id, None)
            if following is not None:
                self._numbers[task_id] = following
                self._spent[task_id] = (job.spent if job else 0.0) + event.seconds
                self._failures.pop(task_id, None)
                self._push(task_id)

    def pending(self) -> list[str]:
        return [*self._first, *(one.task_id for one in sorted(self._waiting))]

    def reopen(self, task_ids: Sequence[str]) -> PassQueue:
        self._failures.clear()
        self._first += task_ids
        return self

    def _push(self, task_id: str, retried: bool = False) -> None:
        self._waiting.append(_Waiting(retried, self._numbers[task_id], self._costs[task_id], task_id))

    def _is_of_another(self, task_id: str, worker: int) -> bool:
        return self._holders.get(task_id, worker) != worker

    def _forget(self, task_id: str) -> None:
        self._holders.pop(task_id, None)
        self._spent.pop(task_id, None)

    def _forget_worker(self, worker: int | None) -> None:
        """Of a worker whose job was lost: the process that follows under its number holds nothing."""
        for task_id in [one for one, holder in self._holders.items() if holder == worker]:
            self._forget(task_id)


def next_pass(result: Mapping[str, Any]) -> int | None:
    """The pass that follows, by a task's result as its worker or the timeline has it; None where its work has ended."""
    number = result.get("next_pass")
    return number if isinstance(number, int) and number > 0 and not result.get("failed") else None
