"""Stages: several ways to do the same jobs, tried one after the other; what one gives up falls to the next.

A stage is a pool with an entry and settings of its own (a fast engine first, a plain one behind it). Only what the last stage cannot do
is given up. Knows nothing about what a job is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.workers.pool import Launch, here, run_jobs
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Timeouts, WorkerQuota


@dataclass(frozen=True)
class Backend:
    """One way to do the jobs.

    Attributes:
        name: what people call it.
        entry, settings, limits: see `run_jobs`.
    """

    name: str
    entry: str
    settings: Callable[[int], dict[str, Any]]
    limits: Timeouts


def run_with_fallback(
    jobs: Sequence[Job] | JobSource,
    stages: Sequence[Backend],
    share: WorkerQuota,
    deadline: float,
    log_folder: Path,
    environment: Callable[[int], dict[str, str]] | None = None,
    soft: float | None = None,
    launch: Launch = here,
) -> Iterator[Event]:
    """`run_jobs` with the first stage, then with the next for what the one before gave up, part by part.

    A part that is not at fault is only ever given up with the whole stage (no worker gets ready): it goes on in the next too. For every
    such part there is one event "handed_on", with the stage's name in its reason.

    Raises:
        PoolError: where not one worker of the last stage gets ready.
    """
    supply: JobSource = JobQueue(jobs) if isinstance(jobs, Sequence) else jobs
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        handed: list[str] = []
        logs = log_folder if len(stages) == 1 else log_folder / stage.name
        try:
            for event in run_jobs(supply, stage.entry, stage.settings, share, deadline, logs, stage.limits, environment, soft, launch):
                if event.kind == "deadline":
                    yield replace(event, task_ids=tuple(dict.fromkeys([*event.task_ids, *handed])))
                    return
                if event.kind == "given_up" and not last:
                    handed += event.task_ids
                    yield replace(event, kind="handed_on", reason=f"{stage.name}: {event.reason}")
                else:
                    yield event
        except PoolError as error:
            if last:
                raise
            for part in supply.pending():
                yield Event("handed_on", -1, (part,), f"{stage.name}: {error}")
        if not handed and not supply.pending():
            return
        supply = supply.reopen(handed)
