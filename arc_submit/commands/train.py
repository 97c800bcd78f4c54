"""`arc-submit train`: its options and the configuration from them. Does not know how training works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.options import add_json, add_options, options_of
from arc_submit.train.config import BENCHMARKS, TrainConfig, TrainSettings
from arc_submit.train.mixture import parse_part, read_mixture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit train`."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder of the base model")
    add("--out", type=Path, required=True, help="folder for checkpoints, log and result; a training that was started there goes on")
    part = "DATA,PROMPT[,WEIGHT][,name=value]"
    add("--data", action="append", default=[], metavar=part, help="one part of the mixture; may be repeated")
    mixture = "the same as a JSON file: a list of objects with data, prompt, weight, ...; may be repeated and combined with --data"
    add("--mixture", type=Path, action="append", default=[], help=mixture)
    evaluated = "data of evaluations, which training leaves out (default: the mixture itself, with another seed)"
    add("--eval-data", action="append", default=[], metavar="DATA,PROMPT", help=evaluated)
    benchmarks = f"data that the model will be measured on; may be repeated; 'none' for nothing (default: {', '.join(BENCHMARKS)})"
    add("--benchmarks", "--measured", action="append", metavar="DATA", help=benchmarks)
    find_batch = "train nothing: measure the speed by samples in a pass and their length, and how many fit, into --out"
    add("--find-batch", action="store_true", help=find_batch)
    add_options(parser, TrainConfig, "train", defaults={"device": None})
    add_options(parser.add_argument_group("training options"), TrainSettings, "train")
    add_options(parser.add_argument_group("lora options"), LoraSettings, "train", "lora_")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train, or measure the fastest size of a pass; returns figures."""
    import torch

    settings, lora, own = (_given(args, kind, prefix) for kind, prefix in ((TrainSettings, ""), (LoraSettings, "lora_"), (TrainConfig, "")))
    if settings.get("minutes") and "steps" not in settings:
        settings["steps"] = 0
    if lora and args.base_adapter:
        raise ConfigError(
            f"--base-adapter with --lora-{next(iter(lora))}: the base adapter has settings of its own; leave --lora-... out, or merge it "
            "into its base (arc-submit merge) and train another"
        )
    if lora and settings.get("full"):
        raise ConfigError(f"--full with --lora-{next(iter(lora))}: all weights are trained, without an adapter; leave one of the two out")
    if args.benchmarks is not None:
        own["benchmarks"] = tuple(source for source in args.benchmarks if source != "none")
    config = TrainConfig(
        model=args.model,
        out=args.out,
        **{"device": "cuda" if torch.cuda.is_available() else "cpu", **own},
        parts=(*map(parse_part, args.data), *(part for path in args.mixture for part in read_mixture(path))),
        settings=TrainSettings(**settings),
        lora=LoraSettings(**lora),
        eval_parts=tuple(map(parse_part, args.eval_data)),
    )
    if args.find_batch:
        from arc_submit.train.find_batch import find_batch

        figures = find_batch(config)
    else:
        from arc_submit.train.train import train

        figures = train(config)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return figures


def _given(args: argparse.Namespace, kind: type, prefix: str) -> dict[str, Any]:
    """The options of a settings class that the command line gives."""
    values = {name: getattr(args, f"{prefix}{name}") for name, definition in options_of(kind) if "train" in definition.commands}
    return {name: value for name, value in values.items() if value is not None}
