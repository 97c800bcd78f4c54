"""The source "code" as a worker of a run: a language model writes Python programs for a task, and the right ones answer it.

Each answer of the model is kept in the source's folder as soon as it ends, so that a job that was killed goes on with the next question.
First programs are asked for under some views. When all of a run's first programs are there, programs that failed are shown back for a few
turns with what went wrong, so that a task has the same questions whether its first programs were asked for at once or in several jobs. A
task asks nothing more when a program reproduces all train pairs and gives a grid for every test input. Rounds of learning
(arc_submit.programs.rounds) may follow: a LoRA of the task is fine-tuned on what its programs really do, and asked for more. The programs'
outputs for the test inputs become predictions, before each round of learning and at the end of a job, each with the program's text and the
number of train pairs that it reproduces. Does not know the run's budget or other workers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.prediction import read_predictions
from arc_submit.errors import ArcSubmitError
from arc_submit.programs.code_answers import append_new, make_predictions
from arc_submit.programs.code_settings import CodeSettings
from arc_submit.programs.code_task import CodeTask
from arc_submit.programs.code_writer import CodeWriter, load_writer
from arc_submit.programs.python.language import PythonLanguage
from arc_submit.programs.relabel import RanProgram
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job: {"tasks": [task ids]} -> a TaskResult for each.

    A job's "views" replaces the number of first programs; its "soft_deadline" is on the monotonic clock.

    Args:
        settings_json: CodeSettings.
        beat: called after every step of the engine and every program.

    Raises:
        ArcSubmitError: where the model or its question cannot work.
    """
    settings = CodeSettings.from_json(settings_json)
    writer = load_writer(settings)
    language = PythonLanguage()
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        samples = job.get("views", settings.code.samples)
        results = {}
        for task_id in job["tasks"]:
            results[task_id] = answer_task(writer, language, task_id, samples, beat, job.get("soft_deadline")).to_json()
        return {"tasks": results}

    return do


def answer_task(
    writer: CodeWriter, language: PythonLanguage, task_id: str, samples: int, beat: Callable[..., None], deadline: float | None = None
) -> TaskResult:
    """Ask for programs for a task until one reproduces all train pairs, the turns are used up, or the time is; write its predictions.

    Args:
        samples: first programs.
        deadline: on the monotonic clock.
    """
    started, settings = time.monotonic(), writer.settings
    paths = RunPaths(Path(settings.predict.run))
    path = paths.predictions(settings.predict.source, task_id)
    result = TaskResult(answered=0, tokens=0, malformed=0)

    def answer(ran: Iterable[RanProgram | None]) -> None:
        seconds = time.monotonic() - started
        predictions = make_predictions(task, ran, Path(settings.predict.model).name, settings.predict.source, seconds)
        result.made = (result.made or 0) + append_new(path, predictions, settings.predict.kind)

    try:
        task = read_task(paths.task(task_id))
        work = CodeTask(writer, language, task, lambda: beat({"tokens": result.tokens}), answer)
        result.held = len(read_predictions(path)[0])
        complete = work.ask(samples, deadline)
        result.refused = work.refused
        result.answered = sum(one.turn == 0 for one in work.answers)
        result.steps, result.train_seconds = work.further, round(work.further_seconds, 3)
        result.tokens = sum(one.tokens for one in work.new)
        result.malformed = sum(not one.text for one in work.new)
        result.programs = dict(Counter(map(_ending, work.ran)).most_common()) or None
        result.notes = [*work.notes, *dict.fromkeys(work.failures)] or None
        result.unfinished = 0 if complete else max(1, samples - result.answered)
        answer(ran for _, ran in work.in_order)
        if not work.answers and work.refused:
            result.failed = work.refused[0]
        elif work.failures and not work.answers:
            result.failed, result.not_served = work.failures[0], True
    except ArcSubmitError as error:
        result.failed = str(error)
    result.seconds = round(time.monotonic() - started, 3)
    return result


def _ending(ran: RanProgram | None) -> str:
    """What came of an answer, see `TaskResult.programs`."""
    if ran is None:
        return "none"
    return ran.refusal.partition(":")[0] if ran.refusal else "grids"
