"""The search as a worker of a run: each task's answers are appended to the run directory as they are found.

The compiled code is loaded once. Does not know the run's budget or the processes around it.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import Prediction, append_predictions, read_predictions
from arc_submit.arc.task import Task
from arc_submit.arc.views import identity_view
from arc_submit.errors import ArcSubmitError
from arc_submit.search.precompile import warm_up
from arc_submit.search.settings import PASSES, SearchSettings
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult

if TYPE_CHECKING:
    from arc_submit.search.programs import Propose
    from arc_submit.search.ranking import Ranked
    from arc_submit.search.task_search import TaskSearch

KIND = "search"
KEEP = 10  # different answers kept for each test input
MOST_HELD = 40_000  # grids that a worker holds for further passes, a few kilobytes each with their rules


def open_worker(
    settings_json: dict[str, Any], beat: Callable[..., None], propose: Propose | None = None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the compiled code and return the function that does a job: {"tasks": [task ids], "pass": number} -> a TaskResult for each.

    Args:
        settings_json: SearchSettings.
        beat: called after every batch of answers.
        propose: sets the order in which programs are explored, see `search.programs.Effort`.
    """
    settings = SearchSettings(**settings_json)
    paths = RunPaths(Path(settings.run))
    os.nice(settings.niceness)
    warm_up()
    bound_memory(settings.memory_gb)
    searches = Searches(settings.effort, propose)
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        number = job.get("pass", 0)
        return {"tasks": {task_id: _search_task(paths, task_id, number, searches, settings, beat).to_json() for task_id in job["tasks"]}}

    return do


class Searches:
    """The searches of tasks whose next pass may follow, with the answers of their passes so far.

    A pass whose earlier passes another process has done begins with these passes: its result is the same, and takes longer.
    """

    def __init__(self, effort: str, propose: Propose | None = None):
        self._effort, self.propose = effort, propose
        self._open: dict[str, TaskSearch] = {}  # the oldest first

    def get(self, task: Task, number: int) -> TaskSearch:
        """The search of a task whose next pass is not after the pass `number`."""
        from arc_submit.search.task_search import EFFORTS, TaskSearch

        one = self._open.pop(task.id, None)
        if one is not None and one.passes <= number and one.task == task:
            return one
        return TaskSearch(task, replace(EFFORTS[self._effort], propose=self.propose), limit=KEEP)

    def keep(self, one: TaskSearch) -> None:
        """Keep a search for its next pass, in place of the oldest ones where there are too many answers."""
        self._open[one.task.id] = one
        while sum(len(other.ranking.rules) for other in self._open.values()) > MOST_HELD and len(self._open) > 1:
            del self._open[next(iter(self._open))]


def _search_task(
    paths: RunPaths, task_id: str, number: int, searches: Searches, settings: SearchSettings, beat: Callable[..., None]
) -> TaskResult:
    started, cpu_started = time.monotonic(), time.process_time()
    path = paths.predictions(settings.source, task_id)
    held = len(read_predictions(path)[0])
    failed, following = "", None

    def report() -> None:
        beat({"cpu_seconds": time.process_time() - cpu_started})

    try:
        following = search_into_file(read_task(paths.task(task_id)), path, number, searches, report, settings.source)
    except MemoryError:
        # The answers found so far are on disk. A second try would need the same memory.
        failed = f"memory: more than {settings.memory_gb:g} GB"
    except ArcSubmitError as error:
        failed = str(error)
    report()
    return TaskResult(
        made=len(read_predictions(path)[0]) - held,
        held=held,
        failed=failed,
        seconds=round(time.monotonic() - started, 3),
        cpu_seconds=round(time.process_time() - cpu_started, 3),
        notes=[f"pass {number + 1} of {PASSES}"],
        next_pass=following,
    )


def search_into_file(
    task: Task, path: Path, number: int, searches: Searches, beat: Callable[[], None] | None = None, source: str = KIND
) -> int | None:
    """Do one pass of the search of a task and append each answer that is new or has a better score, and is good enough.

    Args:
        number: of the pass, from 0.
        searches: those of earlier passes.
        beat: called after every batch.
        source: the source's name in the predictions.

    Returns:
        the number of the pass that follows, or None.
    """
    started = time.monotonic()
    written = {_key(p) for p in read_predictions(path)[0]}
    one = searches.get(task, number)
    while one.passes <= number and not one.finished:
        for _, rows in one.next_pass():
            best = [ranked for row in rows for ranked in row]
            lines = [_prediction(task, ranked, time.monotonic() - started, source, searches.propose is not None) for ranked in best]
            new = [line for line in lines if _key(line) not in written]
            append_predictions(path, new)
            written |= {_key(line) for line in new}
            if beat:
                beat()
    if one.finished:
        return None
    searches.keep(one)
    return one.passes


def bound_memory(memory_gb: float) -> None:
    """Bound the memory that the calling process may take beyond what it holds, and write no core file."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + int(memory_gb * 2**30), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _key(prediction: Prediction) -> tuple[int, bytes, float]:
    grid = b"" if prediction.grid is None else grid_id(prediction.grid)
    return prediction.test, grid, round(prediction.logprob, 6)


def _prediction(task: Task, ranked: Ranked, seconds: float, source: str, proposed: bool) -> Prediction:
    view, model = identity_view(len(task.train)).key, f"{ranked.solver}: {ranked.program}"
    if proposed:
        model += f" ({round(ranked.explained * len(task.train))} of {len(task.train)} train pairs)"
    return Prediction(task.id, ranked.test, ranked.grid, source, view, ranked.score, model, seconds, kind=KIND)
