"""The pool: workers, each in its own session, watched, killed when silent, restarted, and their jobs given out again.

Every wait has a limit: for a worker's start, for its silence, and for the whole. A job lost with its worker is split into its parts,
so that the one that brought the worker down is found and the others get done; a part that does so `strikes` times is given up
with its reason. Knows nothing about what a job is.
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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from arc_submit.errors import ArcSubmitError
from arc_submit.runtime.worker import PARENT


@dataclass(frozen=True)
class Job:
    """Work for one worker at a time.

    Attributes:
        parts: names of what the job is made of; a lost job is given out again part by part.
        key: the payload is {key: [parts]}.
    """

    parts: tuple[str, ...]
    key: str = "tasks"
    strikes: int = 0


@dataclass(frozen=True)
class Limits:
    """How long what may take, in seconds.

    Attributes:
        start: from a worker's start to its "ready", the model's loading included; a beat does not prolong it.
        silence: between two heartbeats while a job is in hand, and from a job's beginning to its first.
        patience: where given, a worker that has beaten steadily may be silent for so many times its own longest pause in the job, at
            least `least` and at most `silence`: a stuck one is then noticed in seconds, and slow work only makes its own limit longer.
        least: see `patience`.
        strikes: how often a part may be lost or fail before it is given up.
        starts: how often a worker may fail to get ready, in a row, before it is not started again.
    """

    start: float = 600.0
    silence: float = 60.0
    patience: float | None = None
    least: float = 10.0
    strikes: int = 2
    starts: int = 3


@dataclass
class Share:
    """What a pool may use of a machine; whoever divides the machine among pools may change it while they run.

    Attributes:
        workers: how many are started. More are started at once; with fewer, those that are there stay until the pool ends.
        stopped: ends the pool as its deadline does.
    """

    workers: int
    stopped: bool = False


@dataclass(frozen=True)
class Event:
    """What happened: a job begun or done, a part given up, a worker started, ready, lost or not started again, or the end of the time.

    "progress" carries in `result` what a worker told with a heartbeat; "handed_on" is a part that the next stage will try
    (arc_submit.runtime.stages).
    """

    kind: Literal["started", "ready", "begun", "progress", "done", "lost", "retired", "given_up", "handed_on", "deadline"]
    worker: int
    parts: tuple[str, ...] = ()
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    pid: int = 0


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float
    heard: float
    ready: bool = False
    job: Job | None = None
    beats: int = 0  # in the job in hand
    pause: float = 0.0  # the longest between two of them
    buffer: bytes = b""
    refused: str = ""
    trouble: str = ""
    leaves: bool = False


class PoolError(ArcSubmitError):
    """No worker can be got ready."""


def run_jobs(
    jobs: Sequence[Job],
    entry: str,
    settings: Callable[[int], dict[str, Any]],
    share: Share,
    deadline: float,
    log_folder: Path,
    limits: Limits | None = None,
    environment: dict[str, str] | None = None,
    pick: Callable[[Sequence[Job]], int] | None = None,
    soft: float | None = None,
) -> Iterator[Event]:
    """Do jobs with a number of workers until all are done or given up, or the deadline has come.

    Whatever ends this generator, an exception or its being closed included, no worker outlives it.

    Args:
        jobs: in the order in which they are to be begun.
        entry: "package.module:function", see arc_submit.runtime.worker.
        settings: what the worker of a number gets, as JSON values.
        share: how many workers there may be.
        deadline: on the monotonic clock; at that moment all workers are killed.
        log_folder: each worker's output is kept here.
        environment: variables to set for the workers.
        soft: on the monotonic clock, before the deadline; told to the workers as "until" with every job, so that they can end by
            themselves and keep what they have.
        pick: index of the waiting job to begin next, where the order is to depend on how the work goes.

    Raises:
        PoolError: where a worker refuses its settings, or not one worker gets ready in `limits.starts` starts.
    """
    limits = limits or Limits()
    waiting = deque(jobs)
    alive: dict[int, _Worker] = {}
    failed_starts: Counter[int] = Counter()
    retired: set[int] = set()
    log_folder.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or any(worker.job for worker in alive.values()):
            now = time.monotonic()
            if now >= deadline or share.stopped:
                left = [part for worker in alive.values() if worker.job for part in worker.job.parts]
                left += [part for job in waiting for part in job.parts]
                yield Event("deadline", -1, tuple(left), "stopped" if share.stopped else "the time is up")
                return
            for number in range(share.workers):
                wanted = len(waiting) + sum(worker.job is not None for worker in alive.values())
                if number not in alive and number not in retired and len(alive) < wanted:
                    alive[number] = _start(number, entry, settings(number), log_folder, environment)
                    yield Event("started", number, pid=alive[number].process.pid)
            for worker in list(alive.values()):
                if worker.ready and not worker.leaves and worker.job is None and waiting:
                    job = _take(waiting, pick)
                    _send(worker, job, soft)
                    yield Event("begun", worker.number, job.parts)
            _wait(alive, min(0.2, max(0.0, deadline - now)))
            for worker in list(alive.values()):
                # What a worker said is read before it is judged, and nothing is yielded in between: a caller that took its time
                # over an event must not make a healthy worker look silent.
                code = worker.process.poll()
                events = _hear(worker, waiting, limits)
                reason = _trouble(worker, code, limits)
                yield from events
                if not reason:
                    continue
                _kill(worker)
                del alive[worker.number]
                failed_starts[worker.number] = 0 if worker.ready else failed_starts[worker.number] + 1
                yield Event("lost", worker.number, worker.job.parts if worker.job else (), reason, pid=worker.process.pid)
                if worker.job:
                    yield from _requeue(worker.job, reason, waiting, limits.strikes, worker.number)
                if worker.refused:
                    raise PoolError(worker.refused)
                if failed_starts[worker.number] >= limits.starts:
                    retired.add(worker.number)
                    yield Event("retired", worker.number, (), f"not ready in {limits.starts} starts: {reason}")
                if retired >= set(range(share.workers)):
                    raise PoolError(f"no worker got ready in {limits.starts} starts: {reason}; see {log_folder}")
    finally:
        _end(list(alive.values()))


def _start(number: int, entry: str, settings: dict[str, Any], log_folder: Path, environment: dict[str, str] | None) -> _Worker:
    log = (log_folder / f"worker-{number}.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "arc_submit.runtime.worker", entry],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **(environment or {}), PARENT: str(os.getpid())},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    worker = _Worker(number, process, log, time.monotonic(), time.monotonic())
    _write(worker, settings)
    return worker


def _take(waiting: deque[Job], pick: Callable[[Sequence[Job]], int] | None) -> Job:
    place = pick(waiting) if pick else 0
    job = waiting[place]
    del waiting[place]
    return job


def _send(worker: _Worker, job: Job, soft: float | None) -> None:
    worker.job = job
    worker.heard = time.monotonic()
    worker.beats, worker.pause = 0, 0.0
    until = {} if soft is None else {"until": soft}  # the monotonic clock is the machine's
    _write(worker, {"id": 0, "payload": {job.key: list(job.parts), **until}})


def _write(worker: _Worker, value: dict[str, Any]) -> None:
    assert worker.process.stdin is not None
    # A worker that died is noticed by its exit, with the job still in its name.
    with contextlib.suppress(BrokenPipeError):
        worker.process.stdin.write(json.dumps(value).encode() + b"\n")
        worker.process.stdin.flush()


def _wait(workers: dict[int, _Worker], seconds: float) -> None:
    """Wait until a worker says something, or for some seconds."""
    with selectors.DefaultSelector() as selector:
        for worker in workers.values():
            selector.register(worker.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        if workers:
            selector.select(timeout=seconds)


def _hear(worker: _Worker, waiting: deque[Job], limits: Limits) -> list[Event]:
    """Take in everything that a worker has said by now."""
    events = []
    for message in _read(worker):
        now = time.monotonic()
        if worker.job and worker.beats:
            worker.pause = max(worker.pause, now - worker.heard)
        worker.heard = now
        worker.beats += worker.job is not None
        kind = message["event"]
        if kind == "ready":
            worker.ready = True
            events.append(Event("ready", worker.number, pid=worker.process.pid))
        elif kind == "beat" and message.get("progress"):
            events.append(Event("progress", worker.number, worker.job.parts if worker.job else (), result=message["progress"]))
        elif kind == "refused":
            worker.refused = message["reason"]
        elif kind == "trouble":
            worker.trouble = message["reason"]
        elif kind in ("done", "failed") and worker.job:
            job, worker.job = worker.job, None
            if kind == "done":
                # What a worker cannot do by its nature will not be better in a second try.
                cannot = message["result"].pop("cannot", {})
                done = tuple(part for part in job.parts if part not in cannot)
                events.append(Event("done", worker.number, done, result=message["result"]))
                events += [Event("given_up", worker.number, (part,), reason) for part, reason in cannot.items()]
            else:
                worker.leaves = message["leaves"]
                events += _requeue(job, message["reason"], waiting, limits.strikes, worker.number)
    return events


def _read(worker: _Worker) -> list[dict[str, Any]]:
    assert worker.process.stdout is not None
    with contextlib.suppress(BlockingIOError):
        while data := os.read(worker.process.stdout.fileno(), 1 << 20):
            worker.buffer += data
    *lines, worker.buffer = worker.buffer.split(b"\n")
    return [json.loads(line) for line in lines if line]


def _trouble(worker: _Worker, code: int | None, limits: Limits) -> str:
    """Why a worker must go, or nothing; `code` is its exit code, or None where it lives."""
    now = time.monotonic()
    if code is not None:
        ending = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return worker.refused or worker.trouble or ending
    if not worker.ready and now - worker.started > limits.start:
        return f"not ready after {limits.start:.0f} s"
    if worker.job and now - worker.heard > (allowed := _silence(worker, limits)):
        return f"silent for {allowed:.0f} s"
    return ""


_STEADY = 4  # heartbeats after which a worker's own pauses say how long it may be silent


def _silence(worker: _Worker, limits: Limits) -> float:
    """Seconds of silence that a worker is allowed now."""
    if limits.patience is None or worker.beats < _STEADY:
        return limits.silence
    return min(limits.silence, max(limits.least, limits.patience * worker.pause))


def _requeue(job: Job, reason: str, waiting: deque[Job], strikes: int, worker: int) -> list[Event]:
    if len(job.parts) > 1:
        # Part by part and without a strike: one of them is to blame and the others are not.
        waiting.extendleft(Job((part,), job.key, job.strikes) for part in reversed(job.parts))
    elif job.strikes + 1 < strikes:
        waiting.append(Job(job.parts, job.key, job.strikes + 1))
    else:
        return [Event("given_up", worker, job.parts, reason)]
    return []


def _kill(worker: _Worker) -> None:
    """End a worker and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    # A process that the kernel holds (a driver, a network mount) cannot be waited for; the deadline must not wait with it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(timeout=5)
    for stream in (worker.process.stdin, worker.process.stdout, worker.log):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def _end(workers: list[_Worker]) -> None:
    """Let idle workers go by closing their input, then kill what is left."""
    for worker in workers:
        if worker.job is None and worker.ready and worker.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
    patience = time.monotonic() + 2.0
    for worker in workers:
        if worker.job is None and worker.ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=max(0.0, patience - time.monotonic()))
        _kill(worker)
