"""The worker of a judge: a model loaded once judges the candidates of one task after the other.

The judgements under one view are appended to the run directory together, so that a kill costs at most the view in hand, and what is there
is not asked again. Does not know which outputs are worth a judgement, nor what follows from the answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_task
from arc_submit.arc.files import append_lines
from arc_submit.arc.grid import Grid
from arc_submit.arc.task import Task
from arc_submit.base_model.cpu import use_cpu
from arc_submit.ensemble.judge_settings import JudgeSettings
from arc_submit.ensemble.judgements import candidate_id, read_judgements
from arc_submit.ensemble.judging import Judge
from arc_submit.errors import ArcSubmitError, DataError
from arc_submit.inference import load
from arc_submit.inference.engine import Engine, NotServedError, ScoringMemoryError
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.storage.run_dir import RunPaths
from arc_submit.storage.task_result import TaskResult


@dataclass(frozen=True)
class LoadedJudge:
    """A loaded model and how it judges."""

    engine: Engine
    tokenizer: PromptTokenizer
    max_seq_len: int
    settings: JudgeSettings


def open_worker(settings_json: dict[str, Any], beat: Callable[..., None]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the model and return the function that does a job.

    A job is {"tasks": [ids], "candidates": {id: {test: [candidate ids]}}}, with "soft_deadline" on the monotonic clock; its result is
    {"tasks": {id: TaskResult as JSON}, "cannot": reasons by task whose adapter another engine may serve}.

    Raises:
        ArcSubmitError: where the model or its prompt cannot work.
    """
    judge = load_judge(JudgeSettings.from_json(settings_json))
    beat()

    def do(job: dict[str, Any]) -> dict[str, Any]:
        results: dict[str, TaskResult] = {}

        def on_made(made: int) -> None:
            beat({"made": made + sum(result.made for result in results.values())})

        try:
            for task_id in job["tasks"]:
                results[task_id] = judge_task(judge, task_id, job["candidates"][task_id], on_made, job.get("soft_deadline"))
        finally:
            if isinstance(judge.engine, TransformersEngine):
                judge.engine.release_adapter()
        return {
            "tasks": {task_id: result.to_json() for task_id, result in results.items() if not result.not_served},
            "cannot": {task_id: result.failed for task_id, result in results.items() if result.not_served},
        }

    return do


def load_judge(settings: JudgeSettings) -> LoadedJudge:
    """The model of the settings.

    Raises:
        ArcSubmitError: where it, or its prompt, cannot work.
    """
    predict = settings.predict
    use_cpu(predict.threads)
    asked = predict.prompt_config()
    engine, base_tokenizer, reason = load.load_engine(predict, asked.max_seq_len)
    tokenizer = PromptTokenizer.from_config(base_tokenizer, asked, None if settings.prompt is None else prompt_version(settings.prompt))
    print(f"judge {predict.model}: {engine.name} on {predict.device} ({reason}); tokens: {tokenizer.summary}", flush=True)
    # vllm generates a token after each that it scores.
    room = engine.context_length - (not isinstance(engine, TransformersEngine))
    return LoadedJudge(engine, tokenizer, min(asked.max_seq_len, room), settings)


def judge_task(
    judge: LoadedJudge,
    task_id: str,
    candidates: Mapping[str, Sequence[str]],
    beat: Callable[[int], None],
    deadline: float | None = None,
) -> TaskResult:
    """`ask_about` for a task and candidates that are read from the run directory.

    Args:
        candidates: ids (`candidate_id`) of the candidates by test input.
    """
    paths = RunPaths(Path(judge.settings.predict.run))
    try:
        task = read_task(paths.task(task_id))
        grids = _read_candidates(paths, task)
        found = {int(test): _find(grids, task, int(test), ids) for test, ids in candidates.items()}
    except ArcSubmitError as error:
        return TaskResult(failed=str(error), not_served=False)
    return ask_about(judge, task, found, beat, deadline)


def ask_about(
    judge: LoadedJudge,
    task: Task,
    candidates: Mapping[int, Sequence[Grid]],
    beat: Callable[[int], None] = lambda made: None,
    deadline: float | None = None,
) -> TaskResult:
    """Ask about the candidates of a task what is not on disk yet, and append the answers there.

    A view without room for a question, or without the memory for it, is left out. The task fails where no view is left, or where its
    adapter cannot be used.

    Args:
        candidates: by test input, in the order in which the outputs are judged.
        beat: called after every forward pass with the number of judgements made in this call.
        deadline: on the monotonic clock; views that are not begun then count as unfinished.
    """
    settings, started, answered = judge.settings, time.monotonic(), 0
    paths = RunPaths(Path(settings.predict.run))
    result = TaskResult(answered=0, unfinished=0, not_served=False)
    try:
        adapter = settings.adapter(task.id)
        if adapter is not None:
            judge.engine.check_adapter(adapter)
        asking = settings.asking(task.id)
        asked = Judge(judge.engine, judge.tokenizer, judge.max_seq_len, asking, adapter, lambda: beat(result.made))
        known = {one.key for one in read_judgements(paths, [task.id])}
        result.held = sum(key[1] == asking.question and key[4:] == (asking.model, asking.fingerprint) for key in known)
        beat(0)
        open_views = [
            questions
            for test, grids in candidates.items()
            for questions in asking.open_questions(task, test, grids, lambda one: one.key in known)
        ]
        result.unfinished = len(open_views)
        for done, questions in enumerate(open_views, 1):
            if deadline is not None and time.monotonic() >= deadline:
                break
            try:
                judgements = asked.answer(task, questions)
            except ScoringMemoryError as error:
                judgements = []
                result.refused.append(f"{task.id}: {error}")
            else:
                if not judgements:
                    result.refused.append(f"{task.id}: no prompt of the judge is shorter than {judge.max_seq_len} tokens")
            append_lines(paths.judgements(task.id), "".join(one.to_line() for one in judgements))
            answered += bool(judgements)
            result.made += len(judgements)
            result.answered, result.unfinished = answered, len(open_views) - done
            result.seconds = round(time.monotonic() - started, 3)
        if result.refused and not result.made and not result.held:
            result.failed, result.unfinished = result.refused[0], 0
    except ArcSubmitError as error:
        result.failed, result.not_served = str(error), isinstance(error, NotServedError)
    return result


def _read_candidates(paths: RunPaths, task: Task) -> dict[tuple[int, str], Grid]:
    """The grids of all predictions for a task, by test input and `candidate_id`."""
    predictions, _ = paths.read_predictions({task.id: len(task.tests)})
    return {(one.test, candidate_id(one.grid)): one.grid for one in predictions if one.grid is not None}


def _find(grids: Mapping[tuple[int, str], Grid], task: Task, test: int, ids: Sequence[str]) -> list[Grid]:
    """The candidates with some ids.

    Raises:
        DataError: where one is not among the predictions.
    """
    if lost := [one for one in ids if (test, one) not in grids]:
        raise DataError(f"task {task.id}, test {test}: candidate {lost[0]} is in no file of predictions any more; start the run again")
    return [grids[test, one] for one in ids]
