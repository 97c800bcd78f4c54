"""The experiment lora-parameters: how many values a LoRA adapter has, by rank and model.

The model is built from its config.json on torch's meta device, without weights. Does not know the bytes of a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.experiments.frame import add_out
from arc_submit.experiments.results import Line, Panel, text_table, write_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the experiment."""
    add_out(parser)
    parser.add_argument(
        "--model", type=Path, nargs="+", default=[pocket_folder()], help="folders with a config.json (default: the pocket model)"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 32, 128, 256], metavar="R", help="ranks (%(default)s)")
    parser.add_argument("--targets", default=",".join(LoraSettings().targets), metavar="NAME,NAME", help="layers to adapt (%(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Count, and make the table and the picture; returns figures."""
    ranks = sorted(set(args.ranks))
    lora = LoraSettings(rank=ranks[0], targets=tuple(args.targets.split(",")))
    counts = {name: count_values(folder, lora, ranks) for name, folder in _named(args.model).items()}
    args.out.mkdir(parents=True, exist_ok=True)
    header = ["rank", *counts]
    text = f"values of an adapter of {args.targets}\n"
    text += text_table([header, *([str(rank), *(f"{found[i]:,}" for found in counts.values())] for i, rank in enumerate(ranks))])
    lines = [Line(name, [(rank, count / 1e6, None) for rank, count in zip(ranks, found, strict=True)]) for name, found in counts.items()]
    values = {"ranks": ranks, "targets": args.targets, "values": counts}
    return write_results(args.out, text, [Panel("rank (log)", "million values", lines, log=2)], values)


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their names.

    Raises:
        ConfigError: where one lacks config.json, or two have the same name.
    """
    named = {folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise ConfigError(f"--model {' '.join(map(str, folders))}: two folders have the same name")
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ConfigError(f"--model {folder}: no config.json in it; give the folder of a model")
    return named


def count_values(folder: Path, lora: LoraSettings, ranks: Sequence[int]) -> list[int]:
    """The number of values in both factors of all adapted layers, for each rank.

    Raises:
        ConfigError: where a rank is below 1, a target matches no layer, or transformers does not have the architecture.
    """
    from arc_submit.base_model.architecture import make_skeleton
    from arc_submit.base_model.lora import find_targets

    layers = find_targets(make_skeleton(folder), replace(lora, rank=ranks[0])).values()
    # Each layer, and the embedding too, has one matrix; its factors have its two sides and the rank.
    sides = sum(sum(layer.get_parameter("weight").shape) for layer in layers)
    return [rank * sides for rank in ranks]
