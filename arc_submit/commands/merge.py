"""`arc-submit merge`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from arc_submit.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the adapter and the result."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder of the base model")
    add("--adapter", type=Path, required=True, help="folder of the adapter, in PEFT's format")
    add("--out", type=Path, required=True, help="folder for the merged model; a new one")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="of the merged weights (default: as the base has them)")
    add_json(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Merge; returns figures."""
    from arc_submit.base_model.saving import merge_adapter

    layers = merge_adapter(args.model, args.adapter, args.out, args.dtype)
    print(f"{args.out}: {layers} layers of {args.model} with {args.adapter} in them")
    return {"layers": layers, "model": str(args.out)}
