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
    _add(subparsers, "check", "arc_submit.kaggle.check", "what Kaggle would refuse of a kernel, or do otherwise in silence")
    _add(subparsers, "push", "arc_submit.kaggle.push", "check a kernel, push it with the kaggle client, and read what that says")
    _add(subparsers, "status", "arc_submit.kaggle.status", "how a kernel's last run stands")
    _add(subparsers, "output", "arc_submit.kaggle.output", "fetch what a kernel's last run left, and look at it")
    _add(subparsers, "submit", "arc_submit.kaggle.submit", "submit a version of a kernel to its competition")
    _add(subparsers, "upload", "arc_submit.kaggle.upload", "make a data set of a folder, or a new version of one")


def _add(subparsers: Any, name: str, module: str, help: str) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    found = import_module(module)
    found.add_arguments(parser)
    parser.set_defaults(command=found.main)
