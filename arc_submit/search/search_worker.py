"""The search as a source of a run: what a run's worker does with a few tasks.

The compiled code is loaded once, then each task's answers are appended to the run directory as they are found. Knows nothing of the run's
budget or about the processes around it; runner.py is the same search on its own, with a process for every task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import read_predictions
from arc_submit.errors import ArcSubmitError
from arc_submit.search.precompile import warm_up
from arc_submit.search.runner import confine, predictions_path, search_into_file


def open_worker(settings: dict[str, Any], beat: Callable[[], None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the compiled code and return the function that does a job: {"tasks": [task ids]} -> counts and failures by task.

    Args:
        settings: run (the run directory), effort (one of task_search.EFFORTS), memory_gb (of this worker beyond what it holds now).
        beat: called after every batch of answers.
    """
    run = Path(settings["run"])
    warm_up()
    confine(settings["memory_gb"])
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        results = {}
        for task_id in job["tasks"]:
            started = time.monotonic()
            path = predictions_path(run, task_id)
            held = len(read_predictions(path)[0])
            failed = ""
            try:
                search_into_file(read_task(run / "tasks" / f"{task_id}.json"), path, settings["effort"], beat)
            except ArcSubmitError as error:
                failed = str(error)
            made = len(read_predictions(path)[0]) - held
            seconds = round(time.monotonic() - started, 3)
            results[task_id] = {"made": made, "held": held, "refused": [], "failed": failed, "seconds": seconds}
            beat()
        return {"tasks": results}

    return do
