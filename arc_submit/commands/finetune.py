"""`arc-submit finetune`."""

from __future__ import annotations

import argparse
from typing import Any

from arc_submit.options import add_json
from arc_submit.run.presets import PRESET_HELP, add_run_options, make_config, option_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of fine-tuning alone."""
    parser.add_argument("--preset", help=PRESET_HELP)
    add_run_options(parser, "finetune")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune on every task; returns figures."""
    from arc_submit.run.pipeline import finetune

    result = finetune(make_config(args.preset, **option_values(args), sources=("ttft",)))
    return {
        "done": len(result.done),
        "failed": len(result.failed),
        "unfinished": len(result.unfinished),
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "adapters": str(result.adapters),
        "losses_picture": str(result.losses) if result.losses else None,
    }
