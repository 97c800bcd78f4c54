"""`arc-submit run`."""

from __future__ import annotations

import argparse
from typing import Any

from arc_submit.options import add_json
from arc_submit.run.config import RunConfig
from arc_submit.run.presets import PRESET_HELP, add_run_options, make_config, option_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a run; a flag that is not given leaves the preset's value."""
    parser.add_argument("--preset", help=PRESET_HELP)
    add_run_options(parser, "run")
    add_json(parser)


def read_config(args: argparse.Namespace) -> RunConfig:
    """The configuration that a command line gives."""
    return make_config(args.preset, **option_values(args))


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make a submission; returns its figures."""
    from arc_submit.run.pipeline import run

    result = run(read_config(args))
    return {
        **result.report.figures,
        "done": len(result.done),
        "failed": len(result.failed),
        "unfinished": len(result.unfinished),
        "lost": result.lost,
        "seconds": round(result.seconds, 1),
        "submission_file": str(result.submission),
    }
