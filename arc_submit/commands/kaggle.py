"""The registry of the commands under `arc-submit kaggle`; a command's options and work are in its module of arc_submit.kaggle."""

from __future__ import annotations

import argparse
from importlib import import_module

from arc_submit.options import add_json

# Each module has add_arguments(parser) and main(args), which returns the command's figures.
COMMANDS = {
    "lock": "resolve a target's wheels and write them to its lock, each with file name and sha256",
    "wheels": "make a data set of the locked wheels and verify that they install offline",
    "bundle": "make a data set of the library, models and adapters",
    "rehearse": "run a notebook without Kaggle as a competition's re-run does",
    "check": "check a kernel for what Kaggle refuses or silently does differently",
    "push": "check a kernel, push it with the kaggle client, and compare Kaggle's record of it",
    "status": "print the state of a kernel's last run, or follow it with its log",
    "output": "download the output of a kernel's last run and check its submission",
    "submit": "submit a version of a kernel to its competition",
    "season": "the season's pushes with their scores, the noise of reruns, and two final picks",
    "upload": "make a data set of a folder, or a new version of one",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a parser for every command."""
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        module = import_module(f"arc_submit.kaggle.{name}")
        module.add_arguments(command)
        add_json(command)
        command.set_defaults(command=module.main)
