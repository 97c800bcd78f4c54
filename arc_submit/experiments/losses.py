"""The experiment losses: the loss curves of several runs in one picture, and where each begins and ends.

Nothing is trained. Does not know how a model is trained.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.experiments.frame import add_out, final_loss
from arc_submit.experiments.results import Line, Panel, text_table, write_results
from arc_submit.report.losses import median_curve, read_losses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_out(parser)
    parser.add_argument(
        "--run", action="append", required=True, metavar="LABEL=RUN", help="directory of a run that fine-tunes, with its label; repeated"
    )


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make the table and the picture; returns figures."""
    losses = {label: read_losses(run) for label, run in read_labels(args.run).items()}
    for label, curves in losses.items():
        if not curves:
            raise DataError(f"--run {label}: no losses in it; give the --out of a run of the source ttft, or of finetune")
    args.out.mkdir(parents=True, exist_ok=True)
    cells, lines, values = [], [], {}
    for label, curves in losses.items():
        first, last = (statistics.fmean(values) for values in ([c[0] for c in curves.values()], [final_loss(c) for c in curves.values()]))
        longest = max(map(len, curves.values()))
        cells.append([label, str(len(curves)), str(longest), f"{first:.3f}", f"{last:.3f}"])
        lines.append(Line(label, [(float(step), loss, None) for step, loss in median_curve(curves)]))
        values[label] = {"adapters": len(curves), "steps": longest, "first_loss": first, "final_loss": last}
    text = text_table([["run", "adapters", "steps", "first loss", "final loss"], *cells])
    return write_results(args.out, text, [Panel("step", "median loss of the adapters, nats a token", lines)], {"runs": values})


def read_labels(given: list[str]) -> dict[str, Path]:
    """Folders by their labels; a folder without a label has its name.

    Raises:
        ConfigError: where two have one label, or one is no folder.
    """
    runs: dict[str, Path] = {}
    for text in given:
        label, sign, folder = text.partition("=")
        # The name of an experiment's run has "=" in it.
        label, path = (label, Path(folder)) if sign and not Path(text).is_dir() else (Path(text).name, Path(text))
        if label in runs:
            raise ConfigError(f"--run {text}: the label {label} is given twice")
        if not path.is_dir():
            raise ConfigError(f"--run {text}: {path} is no folder; write LABEL=RUN")
        runs[label] = path
    return runs
