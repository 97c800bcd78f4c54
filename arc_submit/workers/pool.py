"""The pool: workers, each a process in its own session, watched, killed when silent, restarted, and their jobs given out again.

What to do when is decided by arc_submit.workers.supervisor; here are the processes, their pipes and the clock. Knows nothing about what a job is.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from arc_submit.workers.parent_death import PARENT
from arc_submit.workers.supervisor import Event, Job, JobQueue, JobSource, PoolError, Supervisor, Timeouts, WorkerQuota

__all__ = ["Event", "Job", "Launch", "PoolError", "Timeouts", "WorkerQuota", "here", "run_jobs"]

# From the Python arguments that make a worker, and the variables to set for it, those of the process to start on this machine: it is the
# worker, or what passes everything on to one elsewhere.
Launch = Callable[[Sequence[str], Mapping[str, str]], Sequence[str]]


def here(arguments: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    """The worker on this machine."""
    return arguments


@dataclass
class _Process:
    """A worker's process, its log, and what it has said of a line that is not whole yet."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    buffer: bytes = b""


def run_jobs(
    jobs: Sequence[Job] | JobSource,
    entry: str,
    settings: Callable[[int], dict[str, Any]],
    share: WorkerQuota,
    deadline: float,
    log_folder: Path,
    limits: Timeouts | None = None,
    environment: Callable[[int], dict[str, str]] | None = None,
    soft: float | None = None,
    launch: Launch = here,
) -> Iterator[Event]:
    """Do jobs with a number of workers until all are done or given up, or the deadline has come.

    Whatever ends this generator, an exception or its being closed included, no worker outlives it.

    Args:
        jobs: in the order in which they are to be begun, or what chooses the next as the work goes (arc_submit.scheduling.scheduler).
        entry: "package.module:function", see arc_submit.workers.worker.
        settings: what the worker of a number gets, as JSON values.
        share: how many workers there may be.
        deadline: on the monotonic clock; at that moment all workers are killed.
        log_folder: each worker's output is kept here.
        environment: variables to set for the worker of a number.
        soft: on the monotonic clock, before the deadline; told to the workers as "until" with every job, so that they can end by
            themselves and keep what they have.
        launch: where the workers are, see arc_submit.workers.ray_cluster for another place.

    Raises:
        PoolError: where a worker refuses its settings, or not one worker gets ready in `limits.starts` starts.
    """
    crew = Supervisor(JobQueue(jobs) if isinstance(jobs, Sequence) else jobs, limits or Timeouts(), share, deadline)
    processes: dict[int, _Process] = {}
    log_folder.mkdir(parents=True, exist_ok=True)
    try:
        while not crew.finished(time.monotonic()):
            now = time.monotonic()
            if over := crew.overtime(now):
                yield over
                return
            for number in crew.starts(now):
                variables = environment(number) if environment else {}
                processes[number] = _start(number, entry, settings(number), log_folder, variables, launch)
                yield crew.started(number, processes[number].process.pid, time.monotonic())
            for number in list(crew.members):
                if begun := crew.assign(number, time.monotonic()):
                    _send(processes[number], crew.members[number].job, soft)
                    yield begun
            _wait(processes, min(0.2, max(0.0, deadline - now)))
            for number in list(crew.members):
                # What a worker said is read before it is judged, and nothing is yielded in between: a caller that took its time
                # over an event must not make a healthy worker look silent.
                worker = processes[number]
                code = worker.process.poll()
                events = [event for message in _read(worker) for event in crew.on_message(number, message, time.monotonic())]
                reason = crew.trouble(number, code, time.monotonic())
                yield from events
                if not reason:
                    continue
                _kill(worker)
                del processes[number]
                events, hopeless = crew.on_exit(number, reason, time.monotonic())
                yield from events
                if hopeless:
                    raise PoolError(f"{hopeless}; see {log_folder}")
    finally:
        _end(list(processes.values()), [processes[n] for n, member in crew.members.items() if member.ready and member.job is None])


def _start(number: int, entry: str, settings: dict[str, Any], log_folder: Path, environment: dict[str, str], launch: Launch) -> _Process:
    log = (log_folder / f"worker-{number}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, *launch(["-m", "arc_submit.workers.worker", entry], environment)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **environment, PARENT: str(os.getpid())},
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    worker = _Process(process, log)
    _write(worker, settings)
    return worker


def _send(worker: _Process, job: Job | None, soft: float | None) -> None:
    assert job is not None
    seconds = {} if soft is None else {"seconds": soft - time.monotonic()}
    _write(worker, {"id": 0, "payload": {job.key: list(job.task_ids), **job.params}, **seconds})


def _write(worker: _Process, value: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    # A worker that died is noticed by its exit, with the job still in its name.
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(value).encode() + b"\n")
        worker.process.stdin.flush()


def _wait(workers: dict[int, _Process], seconds: float) -> None:
    """Wait until a worker says something, or for some seconds."""
    with selectors.DefaultSelector() as selector:
        for worker in workers.values():
            selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        if workers:
            selector.select(timeout=seconds)


def _read(worker: _Process) -> list[dict[str, Any]]:
    """Everything that a worker has said by now."""
    assert worker.process.stdout is not None
    with contextlib.suppress(BlockingIOError):
        while data := os.read(worker.process.stdout.fileno(), 1 << 20):
            worker.buffer += data
    *lines, worker.buffer = worker.buffer.split(b"\n")
    return [json.loads(line) for line in lines if line]


def _kill(worker: _Process, patience: float = 5.0) -> None:
    """End a worker and whatever it started.

    A process that the kernel holds (a driver, a network mount) cannot be waited for; the deadline must not wait with it.
    """
    _signal(worker)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=patience)
    for stream in (worker.process.stdin, worker.process.stdout, worker.log):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _signal(worker: _Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)


def _end(workers: list[_Process], idle: list[_Process]) -> None:
    """Let idle workers go by closing their input, then kill what is left; all together have the time that one would have."""
    for worker in workers:
        if worker not in idle:
            _signal(worker)
        elif worker.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
    patience = time.monotonic() + 2.0
    for worker in idle:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=max(0.0, patience - time.monotonic()))
    patience = time.monotonic() + 5.0
    for worker in workers:
        _kill(worker, max(0.0, patience - time.monotonic()))
