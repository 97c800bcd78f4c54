"""Fallback: the same jobs by several backends, one after the other; the next backend takes the tasks that the one before gives up.

A fast engine comes first and a plain one behind it. Only the last backend gives a task up for good. Does not know what a job does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from arc_submit.workers.pool import Backend, ProcessConfig, run_jobs
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Quota


def run_with_fallback(
    jobs: Sequence[Job] | JobSource,
    backends: Sequence[Backend],
    processes: ProcessConfig,
    quota: Quota,
    deadline: float,
    soft_deadline: float | None = None,
) -> Iterator[Event]:
    """`run_jobs` with the first backend, then with the next one for the tasks that were given up.

    Each such task yields an event "handed_on" with the backend's name in its reason. Where no worker of a backend gets ready, the next
    backend takes all remaining tasks. Logs lie in the log folder itself with one backend, else in a folder for each backend.

    Raises:
        PoolError: where no worker of the last backend gets ready.
    """
    source: JobSource = JobQueue(jobs) if isinstance(jobs, Sequence) else jobs
    for backend in backends:
        last = backend is backends[-1]
        handed_on: list[str] = []
        config = processes if len(backends) == 1 else replace(processes, log_folder=processes.log_folder / backend.name)
        if not last:  # a backend that does not start costs two waits, and the next one does not wait for devices of this one
            starts = min(2, backend.timeouts.max_failed_starts)
            backend = replace(backend, timeouts=replace(backend.timeouts, max_failed_starts=starts, wait_for_retired=False))
        try:
            for event in run_jobs(source, backend, config, quota, deadline, soft_deadline):
                if event.kind == "deadline":
                    # Tasks that wait for the next backend are unfinished too; a task may be in both lists.
                    yield replace(event, task_ids=tuple(dict.fromkeys([*event.task_ids, *handed_on])))
                    return
                if event.kind == "given_up" and not last:
                    handed_on += event.task_ids
                    yield replace(event, kind="handed_on", reason=f"{backend.name}: {event.reason}")
                else:
                    yield event
        except PoolError as error:
            if last:
                raise
            for task_id in source.pending():
                yield Event("handed_on", -1, (task_id,), f"{backend.name}: {error}")
        if not handed_on and not source.pending():
            return
        source = source.reopen(handed_on)
