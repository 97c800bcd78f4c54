"""`arc-submit experiment`."""

from __future__ import annotations

import argparse
from importlib import import_module

from arc_submit.experiments.registry import EXPERIMENTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The experiments, each with its options."""
    names = parser.add_subparsers(required=True, metavar="name")
    for name, purpose in EXPERIMENTS.items():
        module = import_module(f"arc_submit.experiments.{name.replace('-', '_')}")
        experiment = names.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        experiment.set_defaults(command=module.main)
        module.add_arguments(experiment)
