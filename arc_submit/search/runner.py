"""The runner: a search over a whole challenges file in child processes, one per task, each under a time and a memory limit.

A child appends its answers to the task's file as it finds them and the parent watches from outside: a child that takes too long, grows too
large or dies is ended with its whole process group, alone, and keeps what it wrote. What was finished before is not done again. A child is
forked from a parent that has the compiled code loaded, so a task costs no start-up. Knows nothing about how answers are found.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc_submit.arc.best_first import best_first
from arc_submit.arc.datasets import Challenges, read_challenges, write_json
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.submission import Submission
from arc_submit.arc.task import Task
from arc_submit.arc.views import identity_view
from arc_submit.errors import ConfigError
from arc_submit.search.precompile import warm_up

if TYPE_CHECKING:
    from arc_submit.search.ranking import Ranked

SOURCE = "search"
KEEP = 10  # different answers kept for each test input
_POLL_SECONDS = 0.02
_OUT_OF_MEMORY = 3

Work = Callable[[Task, Path, str], None]


@dataclass(frozen=True)
class TaskReport:
    """How the search of one task ended.

    Attributes:
        task: task id.
        ending: "done"; "time" or "memory" where a limit cut it, "died" where the process ended otherwise.
        seconds: wall-clock seconds.
        cpu_seconds: CPU seconds of the child.
        answers: how many different answers its file holds.
        effort: name of the effort.
    """

    task: str
    ending: str
    seconds: float
    cpu_seconds: float
    answers: int
    effort: str


def run_search(
    challenges: Challenges,
    out: Path,
    workers: int = 1,
    seconds_per_task: float = 600.0,
    memory_gb: float = 4.0,
    effort: str = "normal",
    progress: bool = True,
    work: Work | None = None,
) -> list[TaskReport]:
    """Search every task and leave OUT/predictions/search/<task>.jsonl, OUT/search/<task>.json and OUT/submission.json.

    Args:
        challenges: the tasks.
        out: the run directory; tasks that a run of the same effort finished there are not searched again.
        workers: how many tasks are searched at a time; the answers do not depend on it.
        seconds_per_task: wall-clock limit of a task; only a task that reaches it depends on the machine's speed.
        memory_gb: memory that a task may take beyond what the parent holds.
        effort: one of task_search.EFFORTS.
        progress: whether a progress bar is shown.
        work: what a child does for a task, for tests; the search itself by default.

    Returns:
        a report for each task of the file, those of earlier runs included.

    Raises:
        ConfigError: for an option out of its range.
    """
    if workers < 1 or seconds_per_task <= 0 or memory_gb <= 0:
        raise ConfigError(f"search: {workers} workers, {seconds_per_task} s and {memory_gb} GB per task: all must be positive")
    submission = Submission(challenges, out / "submission.json")
    reports = {task_id: report for task_id in challenges.tasks if (report := _finished(out, task_id, effort, seconds_per_task)) is not None}
    for task_id in reports:
        _submit(submission, out, challenges.tasks[task_id])
    submission.save()
    waiting = [task for task_id, task in challenges.tasks.items() if task_id not in reports]
    if work is None and waiting:
        warm_up()
    running: dict[int, _Child] = {}
    bar = _bar(len(challenges.tasks), len(reports), progress)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                child = _start(waiting.pop(0), out, effort, memory_gb, work or search_into_file)
                running[child.pid] = child
            for child in _ended(running, seconds_per_task):
                report = _report(child, out, effort)
                reports[child.task.id] = report
                write_json(out / "search" / f"{child.task.id}.json", asdict(report))
                _submit(submission, out, child.task)
                submission.save()
                bar.update(1)
                if report.ending != "done":
                    bar.write(f"{report.task}: cut by {report.ending} after {report.seconds:.1f} s, {report.answers} answers kept")
            time.sleep(_POLL_SECONDS)
    finally:
        for child in running.values():
            _kill(child.pid)
            os.waitpid(child.pid, 0)
        bar.close()
    return [reports[task_id] for task_id in challenges.tasks]


def search_into_file(task: Task, path: Path, effort: str, beat: Callable[[], None] | None = None) -> None:
    """Search one task and append each answer that is new or better founded and good enough; `beat` is called after every batch."""
    from arc_submit.search.ranking import Ranking
    from arc_submit.search.task_search import EFFORTS, batches

    started = time.monotonic()
    written = {_key(p) for p in read_predictions(path)[0]}
    ranking = Ranking(task)
    for batch in batches(task, EFFORTS[effort]):
        ranking.add(batch)
        best = [ranked for row in ranking.best(KEEP) for ranked in row]
        lines = [_prediction(task, ranked, time.monotonic() - started) for ranked in best]
        new = [line for line in lines if _key(line) not in written]
        append_predictions(path, new)
        written |= {_key(line) for line in new}
        if beat:
            beat()


def best_attempts(predictions: list[Prediction], tests: int) -> list[list[Prediction]]:
    """For each test input its different grids by score, best first."""
    rows: list[list[Prediction]] = [[] for _ in range(tests)]
    for p in predictions:
        if 0 <= p.test < tests:
            rows[p.test].append(p)
    return [best_first(row, lambda p: p.logprob, lambda p: p.grid) for row in rows]


def predictions_path(out: Path, task_id: str) -> Path:
    """Where the answers of a task lie."""
    return out / "predictions" / SOURCE / f"{task_id}.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit search`."""
    parser.add_argument("--challenges", type=Path, required=True, help="challenges file")
    parser.add_argument("--out", type=Path, required=True, help="run directory; a run that was cut short goes on from it")
    parser.add_argument("--workers", type=int, default=max(1, os.cpu_count() or 1), help="tasks at a time (default: one per core)")
    parser.add_argument("--seconds-per-task", type=float, default=600.0, help="wall-clock limit of a task (default: %(default)s)")
    parser.add_argument("--memory-per-task", type=float, default=4.0, metavar="GB", help="memory limit of a task (default: %(default)s)")
    parser.add_argument("--effort", choices=("quick", "normal", "long"), default="normal", help="counted work per task")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object on the last line")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit search`; returns its figures."""
    challenges = read_challenges(args.challenges)
    for line in challenges.errors.values():
        print(line)
    started = time.monotonic()
    reports = run_search(challenges, args.out, args.workers, args.seconds_per_task, args.memory_per_task, args.effort)
    cut = [report for report in reports if report.ending != "done"]
    figures = {
        "tasks": len(reports),
        "answered": sum(report.answers > 0 for report in reports),
        "cut": len(cut),
        "cpu_seconds": round(sum(report.cpu_seconds for report in reports), 1),
        "seconds": round(time.monotonic() - started, 1),
        "submission": str(args.out / "submission.json"),
    }
    print(f"{figures['answered']} of {figures['tasks']} tasks answered, {figures['cut']} cut by a limit; {figures['submission']}")
    return figures


@dataclass
class _Child:
    pid: int
    task: Task
    started: float
    status: int = 0
    cpu_seconds: float = 0.0
    late: bool = False


def _start(task: Task, out: Path, effort: str, memory_gb: float, work: Work) -> _Child:
    pid = os.fork()
    if pid == 0:
        # In the child nothing may return to the parent's code: whatever happens ends in _exit.
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            confine(memory_gb)
            work(task, predictions_path(out, task.id), effort)
            code = 0
        except MemoryError:
            code = _OUT_OF_MEMORY
        except BaseException as error:  # noqa: BLE001 - the last frame of a process
            os.write(2, f"search: task {task.id}: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return _Child(pid, task, time.monotonic())


def confine(memory_gb: float) -> None:
    """Bound what the calling process may take beyond what it holds, and let it die with its parent."""
    # A parent killed outright cannot end its children; Linux does it for them (PR_SET_PDEATHSIG is 1).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + int(memory_gb * 2**30), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _ended(running: dict[int, _Child], seconds: float) -> list[_Child]:
    """Take the children that have ended out of those running; those beyond their time are killed first."""
    ended = []
    for pid, child in list(running.items()):
        if time.monotonic() - child.started > seconds:
            child.late = True
            _kill(pid)
        got, status, usage = os.wait4(pid, os.WNOHANG if not child.late else 0)
        if got:
            child.status, child.cpu_seconds = status, usage.ru_utime + usage.ru_stime
            # Its number may soon be another process's: nothing may signal it or wait for it again, whatever fails from here on.
            del running[pid]
            ended.append(child)
    return ended


def _kill(pid: int) -> None:
    for end in (os.killpg, os.kill):  # the group, or the child itself where it has not yet made one
        try:
            end(pid, signal.SIGKILL)
            return
        except ProcessLookupError:
            continue


def _report(child: _Child, out: Path, effort: str) -> TaskReport:
    if child.late:
        ending = "time"
    elif os.WIFEXITED(child.status):
        ending = {0: "done", _OUT_OF_MEMORY: "memory"}.get(os.WEXITSTATUS(child.status), "died")
    else:
        ending = "died"
    predictions = read_predictions(predictions_path(out, child.task.id))[0]
    count = sum(len(row) for row in best_attempts(predictions, len(child.task.tests)))
    seconds = round(time.monotonic() - child.started, 3)
    return TaskReport(child.task.id, ending, seconds, round(child.cpu_seconds, 3), count, effort)


def _finished(out: Path, task_id: str, effort: str, seconds: float) -> TaskReport | None:
    """The report that an earlier run of the same effort left, unless its process died or more time is now given than it had."""
    try:
        report = TaskReport(**json.loads((out / "search" / f"{task_id}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    again = report.ending == "died" or (report.ending == "time" and report.seconds < seconds)
    return report if report.effort == effort and not again else None


def _submit(submission: Submission, out: Path, task: Task) -> None:
    predictions = read_predictions(predictions_path(out, task.id))[0]
    for test, row in enumerate(best_attempts(predictions, len(task.tests))):
        grids = [p.grid for p in row[:2] if p.grid is not None]
        if grids:
            submission.set(task.id, test, grids)


def _key(prediction: Prediction) -> tuple[int, bytes, float]:
    grid = b"" if prediction.grid is None else grid_id(prediction.grid)
    return prediction.test, grid, round(prediction.logprob, 6)


def _prediction(task: Task, ranked: Ranked, seconds: float) -> Prediction:
    view = identity_view(len(task.train)).key
    return Prediction(task.id, ranked.test, ranked.grid, SOURCE, view, ranked.score, f"{ranked.solver}: {ranked.program}", seconds)


class _Bar:
    """The progress bar, or nothing in its place."""

    def __init__(self, total: int, done: int):
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its watching thread would be copied half-alive by fork
        self._bar = tqdm(total=total, initial=done, unit="task")

    def update(self, count: int) -> None:
        self._bar.update(count)

    def write(self, line: str) -> None:
        self._bar.write(line)

    def close(self) -> None:
        self._bar.close()


class _NoBar(_Bar):
    def __init__(self) -> None:
        pass

    def update(self, count: int) -> None:
        pass

    def write(self, line: str) -> None:
        print(line)

    def close(self) -> None:
        pass


def _bar(total: int, done: int, progress: bool) -> _Bar:
    return _Bar(total, done) if progress else _NoBar()
