"""`arc-submit plot`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, and the options of each."""
    pictures = parser.add_subparsers(required=True, metavar="picture")
    losses = pictures.add_parser("losses", help="loss curves of fine-tuning")
    losses.set_defaults(command=_plot_losses)
    losses.add_argument("--run", type=Path, required=True, help="run directory")
    losses.add_argument("--out", type=Path, help="PNG file (default: report/losses.png in the run directory)")
    losses.add_argument("--tasks", help="ids separated by commas (default: all)")
    add_json(losses)
    learning = pictures.add_parser("learning", help="learning curves of a base's training, against tokens seen")
    learning.set_defaults(command=_plot_learning)
    learning.add_argument("--run", type=Path, action="append", required=True, help="--out of a training, or its log.jsonl; may be repeated")
    learning.add_argument("--out", type=Path, help="PNG file (default: learning.png beside the first log)")
    learning.add_argument("--intervals", type=int, default=10, help="rows of the table of each (%(default)s)")
    add_json(learning)


def _plot_losses(args: argparse.Namespace) -> dict[str, Any]:
    """Draw loss curves; returns figures."""
    from arc_submit.report.losses import plot_losses, read_losses

    losses = read_losses(args.run)
    wanted = args.tasks.split(",") if args.tasks else sorted(losses)
    missing = [task_id for task_id in wanted if task_id not in losses]
    if missing or not wanted:
        raise DataError(f"{args.run / 'losses'}: no losses of {', '.join(missing) or 'any task'}; fine-tune first, with this --out")
    path = plot_losses(args.out or args.run / "report" / "losses.png", {task_id: losses[task_id] for task_id in wanted})
    print(path)
    return {"tasks": len(wanted), "steps": sum(len(losses[task_id]) for task_id in wanted), "file": str(path)}


def _plot_learning(args: argparse.Namespace) -> dict[str, Any]:
    """Draw learning curves; returns figures."""
    from arc_submit.report.losses import by_tokens, plot_learning, read_learning_curve

    if args.intervals < 1:
        raise ConfigError(f"--intervals {args.intervals}: at least 1 is needed")
    curves = {str(run): read_learning_curve(run) for run in args.run}
    figures: dict[str, Any] = {}
    for name, curve in curves.items():
        rows = by_tokens(curve, args.intervals)
        print(f"{name}: {curve.tokens[-1]:,} tokens")
        for low, high, loss in rows:
            print(f"  {low / 1e6:7.2f} to {high / 1e6:7.2f} M tokens: {loss:.4f} nats a token")
        if curve.eval_losses:
            print(f"  {curve.evaluations}: {curve.eval_losses[0]:.4f} at first, {curve.eval_losses[-1]:.4f} at last")
        evaluated = [*zip(curve.eval_tokens, curve.eval_losses, strict=True)]
        figures[name] = {"tokens": curve.tokens[-1], "losses": rows, "eval_losses": evaluated}
        figures[name] |= {"eval_overlap": overlap} if (overlap := max(curve.overlaps, default=0.0)) else {}
    first = args.run[0] if args.run[0].is_dir() else args.run[0].parent
    path = plot_learning(args.out or first / "learning.png", curves)
    print(path)
    return {"runs": figures, "file": str(path)}
