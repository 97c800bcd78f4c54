"""`arc-submit train`: its options and what they come to. Knows nothing about how training is done."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError
from arc_submit.options import add_json, add_options
from arc_submit.train.config import MEASURED, TrainConfig, TrainSettings
from arc_submit.train.mixture import parse_part, read_mixture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `arc-submit train` beside those of TrainSettings and LoraSettings."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder of the base model")
    add("--out", type=Path, required=True, help="folder for checkpoints, log and result; a training begun there goes on")
    add("--data", action="append", default=[], metavar="DATA,PROMPT[,WEIGHT][,name=value]", help="one part of the mixture; may be repeated")
    told = "the same as a JSON file: a list of objects with data, prompt, weight, ...; may be repeated, and beside --data"
    add("--mixture", type=Path, action="append", default=[], help=told)
    add(
        "--eval-data",
        action="append",
        default=[],
        metavar="DATA,PROMPT",
        help="what evaluations draw from, and nothing is learnt from (default: the mixture itself, by another seed)",
    )
    add("--base-adapter", type=Path, help="PEFT adapter to go on from (default: a fresh one)")
    add("--grid-encoder", help="specification (default: what the model's arc_submit.json says)")
    add("--max-seq-len", type=int, help="tokens of a sample, answer included (default: as above)")
    add(
        "--measured",
        action="append",
        metavar="DATA",
        help=f"what the model will be measured on; 'none' for nothing (default: {', '.join(MEASURED)})",
    )
    add("--drop-measured", action="store_true", help="leave out tasks that repeat measured ones instead of refusing the data")
    add("--seed", type=int, default=0, help="of samples and initial values (default: 0)")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add("--threads", type=int, default=1, help="CPU threads of each process (default: 1)")
    add("--tensorboard", action="store_true", help="also write TensorBoard's files")
    add("--wandb", metavar="PROJECT", help="also report to wandb")
    add(
        "--find-batch",
        action="store_true",
        help="train nothing: measure how fast it would be by samples in a pass and their length, and how many fit, into --out",
    )
    add_options(parser.add_argument_group("training options"), TrainSettings, "train")
    add_options(parser.add_argument_group("lora options"), LoraSettings, "train", "lora_")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train as the command line says, or measure how it would be done fastest; returns figures."""
    import torch

    told = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrainSettings) if getattr(args, f.name) is not None}
    if told.get("minutes") and "steps" not in told:
        told["steps"] = 0
    lora = {f.name: value for f in dataclasses.fields(LoraSettings) if (value := getattr(args, f"lora_{f.name}")) is not None}
    if lora and args.base_adapter:
        raise ConfigError(
            f"--base-adapter with --lora-{next(iter(lora))}: the adapter that is gone on with has a make of its own; leave --lora-... out, "
            "or merge it into its base (arc-submit merge) and train another"
        )
    if lora and told.get("full"):
        raise ConfigError(
            f"--full with --lora-{next(iter(lora))}: all weights are trained, and no adapter is made; leave one of the two out"
        )
    config = TrainConfig(
        model=args.model,
        out=args.out,
        parts=(*map(parse_part, args.data), *(part for path in args.mixture for part in read_mixture(path))),
        settings=TrainSettings(**told),
        lora=LoraSettings(**lora),
        eval_parts=tuple(map(parse_part, args.eval_data)),
        base_adapter=args.base_adapter,
        grid_encoder=args.grid_encoder,
        max_seq_len=args.max_seq_len,
        measured=MEASURED if args.measured is None else tuple(source for source in args.measured if source != "none"),
        drop_measured=args.drop_measured,
        seed=args.seed,
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=args.threads,
        tensorboard=args.tensorboard,
        wandb=args.wandb,
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
