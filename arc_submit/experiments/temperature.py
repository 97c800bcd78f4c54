"""The experiment temperature: accuracy, pass_n and vote_2 of answers that are sampled, by the temperature.

The adapters are those of one run, or there are none; each temperature is an `arc-submit infer`. Does not know how an answer is sampled.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_run_options, measure_run, open_experiment, run_and_measure
from arc_submit.experiments.results import SCORES, row_table, score_panels, write_results
from arc_submit.run.sweep import Point
from arc_submit.storage.run_dir import RunPaths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_run_options(parser, "infer")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0], metavar="T", help="temperatures (%(default)s)"
    )
    parser.add_argument("--run", type=Path, help="run whose adapters predict (default: the base model alone)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Predict at each temperature, and make the table and the picture; returns figures."""
    words = list(args.arguments)
    if args.run is not None:
        if not RunPaths(args.run).adapters.is_dir():
            raise ConfigError(f"--run {args.run}: no adapters in it; give the --out of a run of the source ttft, or of finetune")
        words += ["--adapters", str(RunPaths(args.run).adapters)]
    with open_experiment(args, "temperature") as (directory, chosen):
        points = [
            make_point(temperature, seed, [*words, *chosen.words]) for temperature in sorted(set(args.temperatures)) for seed in args.seeds
        ]
        source = "frozen" if args.run is None else "ttft"
        rows = run_and_measure(directory, points, partial(measure_run, source=source, chosen=chosen))
        text = f"{len(chosen.tasks)} tasks, {'the base model' if args.run is None else f'adapters of {args.run}'}\n"
        text += row_table(rows, (*SCORES, "correct_pixels", "correct_size", "unanswered"))
        return write_results(args.out, text, score_panels(rows, "temperature", "temperature"), {"rows": [row.to_json() for row in rows]})


def make_point(temperature: float, seed: int, words: list[str]) -> Point:
    """The inference at one temperature; the seed is that of the views and of the sampling."""
    settings = {"temperature": f"{temperature:g}", "seed": str(seed)}
    options = ["--temperature", f"{temperature:g}", "--seed", str(seed)]
    return Point(f"temperature={temperature:g},seed={seed}", settings, [*words, *options], "infer")
