"""`arc-submit score`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import read_challenges, read_solutions
from arc_submit.arc.metrics import score_submission, submission_text
from arc_submit.arc.submission import read_submission
from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files to score."""
    parser.add_argument("--challenges", type=Path, required=True, help="the test file")
    parser.add_argument("--solutions", type=Path, required=True, help="its solutions")
    parser.add_argument("--submission", type=Path, required=True, help="the submission.json to check and score")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Score a submission; returns figures."""
    return score(args.challenges, args.solutions, args.submission)


def score(challenges_file: Path, solutions_file: Path, submission_file: Path) -> dict[str, Any]:
    """Check a submission, print its score in both readings and return the figures.

    Raises:
        DataError: where a file cannot be read, or Kaggle would refuse the submission.
    """
    challenges = read_challenges(challenges_file)
    solutions, problems = read_solutions(solutions_file)
    for problem in problems:
        print(f"left out: {problem}")
    scores = score_submission(read_submission(submission_file, challenges), solutions)
    print(f"{submission_file}: valid, {len(challenges.test_counts)} tasks")
    print(submission_text(scores))
    if scores.unscored:
        print(f"{scores.unscored} tasks without a solution were left out")
    return scores.to_json()
