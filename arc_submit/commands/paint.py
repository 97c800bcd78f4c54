"""`arc-submit paint`: a small model draws a picture of many squares by learning from its wrong programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.durations import parse_duration
from arc_submit.options import add_json, add_options, options_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit paint`."""
    from arc_submit.programs.painter.settings import PainterSettings
    from arc_submit.programs.rounds import RoundSettings

    add = parser.add_argument
    add("--squares", type=int, default=25, metavar="N", help="of the picture, a square number (default: 25)")
    add("--budget", default="10m", metavar="TIME", help="of this call (default: 10m)")
    add("--out", type=Path, help="folder of rounds and pictures; the same command goes on with it (default: runs/paint-N-SEED)")
    add("--model", type=Path, metavar="FOLDER", help="the painter before the first round (default: models/painter)")
    add_options(parser, RoundSettings, "paint")
    add_options(parser, PainterSettings, "paint")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Draw the picture; prints a line for each round and returns the figures."""
    from arc_submit.arc.files import write_json
    from arc_submit.programs.painter.paint import Painting, paint, painter_folder
    from arc_submit.programs.painter.settings import PainterSettings
    from arc_submit.programs.rounds import RoundSettings
    from arc_submit.report.painting import line_of, plot_painting

    settings = RoundSettings(**_given(args, RoundSettings)), PainterSettings(**_given(args, PainterSettings))
    painting, seed = Painting(args.squares), settings[0].seed
    budget = parse_duration(args.budget)
    task = painting.task(seed)
    out: Path = args.out or Path("runs") / f"paint-{args.squares}-{seed}"

    outcome = paint(painting, settings, args.model or painter_folder(), out, budget, lambda record, ran: print(line_of(record), flush=True))
    best = outcome.best
    figures: dict[str, Any] = {
        "squares": args.squares,
        "seed": seed,
        "solved": outcome.solved,
        "rounds": len(outcome.records),
        "seconds": round(outcome.seconds, 1),
        "right_cells": round(best.cells, 4) if best else 0.0,
        "lines": best.lines if best else 0,
        "tokens": best.size if best else 0,
        "written": sum(one.written for one in outcome.records),
    }
    word = "solved" if outcome.solved else "not solved"
    print(
        f"{args.squares} squares: {word} in {figures['rounds']} rounds and {figures['seconds']} s; "
        f"best {100 * figures['right_cells']:.1f} % of cells, {figures['lines']} lines, {figures['tokens']} tokens"
    )
    if outcome.records:
        pictures = plot_painting(out / "report", task, outcome.records, f"{args.squares} squares, {word}")
        figures |= {"picture": str(pictures[0]), "curve": str(pictures[1])}
    write_json(out / "paint.json", figures)
    return figures


def _given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """The values that the command line gives."""
    values = {name: getattr(args, name) for name, one in options_of(settings) if "paint" in one.commands}
    return {name: value for name, value in values.items() if value is not None}
