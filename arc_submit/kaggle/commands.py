"""The commands under `arc-submit kaggle`: one line for each, its options and work in a module of its own."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add every command; its module has add_arguments(parser) and main(args), which returns its figures."""
    _add(subparsers, "lock", "arc_submit.kaggle.lock", "which wheels a target needs, written down by file and sha256")
    _add(subparsers, "wheels", "arc_submit.kaggle.wheels", "a data set of exactly the locked wheels, proven to install offline")
    _add(subparsers, "bundle", "arc_submit.kaggle.bundle", "a data set of the library, models and adapters")
    _add(subparsers, "rehearse", "arc_submit.kaggle.rehearse", "run a notebook as a competition's re-run does, without Kaggle")


def _add(subparsers: Any, name: str, module: str, help: str) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    found = import_module(module)
    found.add_arguments(parser)
    parser.set_defaults(command=found.main)
