"""`arc-submit infer`."""

from __future__ import annotations

import argparse
from typing import Any

from arc_submit.commands.score import score, score_inputs
from arc_submit.durations import format_duration
from arc_submit.errors import ConfigError
from arc_submit.options import add_json
from arc_submit.run.presets import INFER_DEFAULTS, add_run_options, make_infer_config, option_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of inference alone."""
    add_run_options(parser, "infer", INFER_DEFAULTS)
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Predict, and score where solutions are given; returns figures."""
    from arc_submit.run.pipeline import infer

    if args.solutions and not args.challenges:
        raise ConfigError("--solutions needs the --challenges they belong to")
    result = infer(make_infer_config(**option_values(args)))
    figures = result.to_json()
    print(
        f"{result.made} predictions made, {result.held} existed, {result.malformed} without a grid, {result.refused} prompts too long; "
        f"{figures['tokens_per_second']:.0f} tokens/s; {len(result.failed)} tasks failed, {len(result.unfinished)} unfinished; "
        f"{format_duration(result.seconds)}"
    )
    if args.solutions:
        figures |= score(args.challenges, args.solutions, args.out / "submission.json")
        if result.made or result.held:
            scores = score_inputs([str(args.out)], args.challenges, args.solutions, [])
            figures |= {name: scores[name] for name in ("sources", "attempts")}
    return figures
