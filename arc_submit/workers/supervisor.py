"""The crew: what a pool decides about its workers, as a state machine that is told the time and touches no process.

Which worker to start, which job to give to whom, when one has been silent for too long, what becomes of a lost job, and when it is over:
every such decision is made here. arc_submit.workers.pool feeds it what real processes say, arc_submit.scheduling.simulation what made-up
ones would say on a clock of their own. Every wait has a limit: for a worker's start, for its silence, and for the whole. A job lost with
its worker is split into its parts, so that the one that brought the worker down is found and the others get done; a part that does so
`max_failures` times is given up with its reason. Knows nothing about what a job is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from arc_submit.errors import ArcSubmitError


@dataclass(frozen=True)
class Job:
    """Work for one worker at a time.

    Attributes:
        parts: names of what the job is made of; a lost job is given out again part by part.
        key: the payload is {key: [parts], **told}.
        failures: how often it has been lost.
        told: what else the worker is told with it.
        why: the reason for which it was chosen.
    """

    task_ids: tuple[str, ...]
    key: str = "tasks"
    failures: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Timeouts:
    """How long what may take, in seconds.

    Attributes:
        start: from a worker's start to its "ready", the model's loading included; a beat does not prolong it.
        silence: between two heartbeats while a job is in hand, and from a job's beginning to its first.
        patience: where given, a worker that has beaten steadily may be silent for so many times its own longest pause in the job, at
            least `least` and at most `silence`: a stuck one is then noticed in seconds, and slow work only makes its own limit longer.
        least: see `patience`.
        max_failures: how often a part may be lost or fail before it is given up.
        starts: how often a worker may fail to get ready, in a row, before it rests.
        rest: how long it rests before it is tried once more; twice as long each time after that.
    """

    startup_timeout: float = 600.0
    heartbeat_timeout: float = 60.0
    patience: float | None = None
    least: float = 10.0
    max_failures: int = 2
    starts: int = 3
    rest: float = 600.0


@dataclass
class WorkerQuota:
    """What a pool may use of a machine; whoever divides the machine among pools may change it while they run.

    Attributes:
        workers: processes at a time. More are started at once; with fewer, those that are there end their work first.
        stopped: ends the pool as its deadline does.
    """

    workers: int
    stopped: bool = False


@dataclass(frozen=True)
class Event:
    """What happened: a job begun or done, a part given up, a worker started, ready, lost or put to rest ("retired"), or the end of time.

    "progress" carries in `result` what a worker told with a heartbeat; "handed_on" is a part that the next stage will try
    (arc_submit.workers.fallback). `told` is what the worker was told with the job, `seconds` how long one took that is done or lost.
    """

    kind: Literal["started", "ready", "begun", "progress", "done", "lost", "retired", "given_up", "handed_on", "deadline"]
    worker: int
    task_ids: tuple[str, ...] = ()
    reason: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    pid: int = 0
    seconds: float = 0.0
    params: dict[str, Any] = field(default_factory=dict)


class PoolError(ArcSubmitError):
    """No worker can be got ready."""


class JobSource(Protocol):
    """Where a crew's jobs come from, and where lost ones go back to."""

    def take(self, workers: int, now: float) -> Job | None:
        """The next job to begin, with so many workers there to share the rest; None where there is nothing to begin now."""

    def waiting(self, workers: int, now: float) -> int:
        """How many jobs could be begun now, 0 where `take` would give none."""

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        """Jobs that were lost: to be begun again before the others, or after them."""

    def note(self, event: Event) -> None:
        """A job is done, or a part given up."""

    def pending(self) -> list[str]:
        """All that waits, the next first."""

    def reopen(self, task_ids: Sequence[str]) -> JobSource:
        """A supply of these parts alone, each in a job of its own and without a strike, and of what waits."""


class JobQueue:
    """Jobs in the order in which they are given."""

    def __init__(self, jobs: Iterable[Job]):
        self._jobs = deque(jobs)

    def take(self, workers: int, now: float) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def waiting(self, workers: int, now: float) -> int:
        return len(self._jobs)

    def requeue(self, jobs: Sequence[Job], first: bool) -> None:
        if first:
            self._jobs.extendleft(reversed(jobs))
        else:
            self._jobs.extend(jobs)

    def note(self, event: Event) -> None:
        pass

    def pending(self) -> list[str]:
        return [part for job in self._jobs for part in job.task_ids]

    def reopen(self, task_ids: Sequence[str]) -> JobQueue:
        return JobQueue([*(Job((part,)) for part in task_ids), *self._jobs])


@dataclass
class WorkerState:
    """A worker as the crew knows it.

    Attributes:
        started, heard, begun: when it was started, last said something, began the job in hand.
        beats: in the job in hand; `pause` is the longest time between two of them.
        refused, trouble: why it will go.
        leaves: it ends by itself after a failed job, and gets none until it is replaced.
    """

    number: int
    pid: int
    started: float
    heard: float
    ready: bool = False
    job: Job | None = None
    begun: float = 0.0
    beats: int = 0
    pause: float = 0.0
    refused: str = ""
    trouble: str = ""
    leaves: bool = False


_STEADY = 4  # heartbeats after which a worker's own pauses say how long it may be silent


class Supervisor:
    """The workers of a pool and what they have in hand.

    Args:
        supply: the jobs.
        limits: how long what may take.
        share: how many workers there may be.
        deadline: when all is over, on the clock whose `now` is given.
    """

    def __init__(self, supply: JobSource, limits: Timeouts, share: WorkerQuota, deadline: float):
        self.supply, self.limits, self.share, self.deadline = supply, limits, share, deadline
        self.members: dict[int, WorkerState] = {}
        self._failed_starts: Counter[int] = Counter()
        self._retired: dict[int, float] = {}  # workers that did not get ready, until when they rest
        self._rests: Counter[int] = Counter()

    @property
    def usable(self) -> int:
        """Workers that there may be and that get ready."""
        return max(1, self.share.workers - sum(number < self.share.workers for number in self._retired))

    def finished(self, now: float) -> bool:
        """Whether nothing is in hand and nothing can be begun."""
        return not any(member.job for member in self.members.values()) and not self.supply.waiting(self.usable, now)

    def overtime(self, now: float) -> Event | None:
        """The end of the time, with all that is not done, once it has come."""
        if now < self.deadline and not self.share.stopped:
            return None
        left = [part for member in self.members.values() if member.job for part in member.job.task_ids]
        return Event("deadline", -1, (*left, *self.supply.pending()), "stopped" if self.share.stopped else "the time is up")

    def starts(self, now: float) -> list[int]:
        """Numbers of the workers to start: as many as there is work for."""
        absent = [n for n in range(self.share.workers) if n not in self.members and self._retired.get(n, now) <= now]
        if not absent:
            return []
        wanted = self.supply.waiting(self.usable, now) + sum(member.job is not None for member in self.members.values())
        return absent[: max(0, wanted - len(self.members))]

    def started(self, number: int, pid: int, now: float) -> Event:
        """A worker has been started."""
        self.members[number] = WorkerState(number, pid, now, now)
        return Event("started", number, pid=pid)

    def assign(self, number: int, now: float) -> Event | None:
        """Give a worker that is ready and idle its next job, where there is one."""
        member = self.members[number]
        if not member.ready or member.leaves or member.job is not None or not self.supply.waiting(self.usable, now):
            return None
        job = self.supply.take(self.usable, now)
        if job is None:
            return None
        member.job, member.begun, member.heard = job, now, now
        member.beats, member.pause = 0, 0.0
        return Event("begun", number, job.task_ids, job.why, params=job.params)

    def on_message(self, number: int, message: dict[str, Any], now: float) -> list[Event]:
        """Take in what a worker has said, a line of its protocol (arc_submit.workers.worker)."""
        member = self.members[number]
        if member.job and member.beats:
            member.pause = max(member.pause, now - member.heard)
        member.heard = now
        member.beats += member.job is not None
        kind = message["event"]
        if kind == "ready":
            member.ready = True
            self._retired.pop(number, None)
            self._rests[number] = 0
            return [Event("ready", number, pid=member.pid, seconds=now - member.started)]
        if kind == "beat" and message.get("progress"):
            return [Event("progress", number, member.job.task_ids if member.job else (), result=message["progress"])]
        if kind == "refused":
            member.refused = message["reason"]
        elif kind == "trouble":
            member.trouble = message["reason"]
        elif kind in ("done", "failed") and member.job:
            job, member.job = member.job, None
            if kind == "done":
                # What a worker cannot do by its nature will not be better in a second try.
                cannot = message["result"].pop("cannot", {})
                task_ids = tuple(part for part in job.task_ids if part not in cannot)
                done = Event("done", number, task_ids, result=message["result"], seconds=now - member.begun, params=job.params)
                events = [done, *(Event("given_up", number, (part,), reason, params=job.params) for part, reason in cannot.items())]
                for event in events:
                    self.supply.note(event)
                return events
            member.leaves = message["leaves"]
            return self._again(job, message["reason"], number)
        return []

    def trouble(self, number: int, code: int | None, now: float) -> str:
        """Why a worker must go, or nothing; `code` is its exit code, or None where it lives."""
        member = self.members[number]
        if code is not None:
            ending = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return member.refused or member.trouble or ending
        if not member.ready and now - member.started > self.limits.startup_timeout:
            return f"not ready after {self.limits.startup_timeout:.0f} s"
        if member.job and now - member.heard > (allowed := self.allowed_silence(number)):
            return f"silent for {allowed:.0f} s"
        return ""

    def allowed_silence(self, number: int) -> float:
        """Seconds of silence that a worker is allowed now."""
        member, limits = self.members[number], self.limits
        if limits.patience is None or member.beats < _STEADY:
            return limits.heartbeat_timeout
        return min(limits.heartbeat_timeout, max(limits.least, limits.patience * member.pause))

    def on_exit(self, number: int, reason: str, now: float) -> tuple[list[Event], str]:
        """A worker has gone: what follows from it, and why the crew cannot go on at all, where that is so."""
        member = self.members.pop(number)
        self._failed_starts[number] = 0 if member.ready else self._failed_starts[number] + 1
        task_ids, seconds = (member.job.task_ids, now - member.begun) if member.job else ((), 0.0)
        events = [Event("lost", number, task_ids, reason, pid=member.pid, seconds=seconds)]
        if member.job:
            events += self._again(member.job, reason, number)
        hopeless = member.refused
        if not hopeless and self._failed_starts[number] >= self.limits.starts:
            rest = self.limits.rest * 2 ** self._rests[number]
            self._rests[number] += 1
            self._retired[number] = now + rest
            why = f"not ready in {self._failed_starts[number]} starts: {reason}; tried again in {rest:.0f} s"
            events.append(Event("retired", number, (), why))
        if not hopeless and set(self._retired) >= set(range(self.share.workers)):
            hopeless = f"no worker got ready in {self.limits.starts} starts: {reason}"
        if hopeless:
            self.supply.requeue([member.job for member in self.members.values() if member.job], first=True)
        return events, hopeless

    def _again(self, job: Job, reason: str, number: int) -> list[Event]:
        """What becomes of a job that was lost or that failed."""
        if len(job.task_ids) > 1:
            # Part by part and without a strike: one of them is to blame and the others are not.
            self.supply.requeue([replace(job, task_ids=(part,)) for part in job.task_ids], first=True)
        elif job.failures + 1 < self.limits.max_failures:
            self.supply.requeue([replace(job, failures=job.failures + 1)], first=False)
        else:
            given_up = Event("given_up", number, job.task_ids, reason, params=job.params)
            self.supply.note(given_up)
            return [given_up]
        return []
