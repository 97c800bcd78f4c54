"""The commands of `arc-submit kaggle`: one line for each, its module imported when its options are asked for. Does no work itself."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

COMMANDS = {
    "check": "what Kaggle would refuse of a kernel, or do otherwise in silence",
    "push": "check, then push with the kaggle client, and read what it says",
    "status": "how the kernel's last run stands",
    "output": "fetch what the kernel's last run left",
    "submit": "submit a version of the kernel to its competition",
    "upload": "make or renew a data set",
}


def add_commands(commands: Any) -> None:
    """Add every command's parser to those of `arc-submit kaggle`."""
    for name, told in COMMANDS.items():
        module = importlib.import_module(f"arc_submit.kaggle.{name}")
        parser: argparse.ArgumentParser = commands.add_parser(name, help=told)
        module.add_arguments(parser)
        parser.set_defaults(command=module.main)
