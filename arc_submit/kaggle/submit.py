"""`arc-submit kaggle submit`: submit one version of a kernel to its competition, and believe only Kaggle's own word for it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.kaggle import status
from arc_submit.kaggle.client import ClientResult, RefusedError, call
from arc_submit.kaggle.findings import read_object
from arc_submit.kaggle.metadata import METADATA
from arc_submit.kaggle.output import SUBMISSION

_SECONDS = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help=f"folder that holds {METADATA} (default: this one)")
    parser.add_argument("--version", type=int, required=True, help="of the kernel, as push printed it")
    parser.add_argument("--message", required=True, help="what this submission is, for yourself")
    parser.add_argument("--competition", help="its slug (default: the only one of competition_sources)")
    parser.add_argument("--file", default=SUBMISSION, help="the kernel's output (default: %(default)s)")
    parser.add_argument(
        "--despite-status", action="store_true", help="submit although the kernel's last run is not complete: an earlier version"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle submit`; returns its figures."""
    kernel = status.which_kernel(str(args.folder))
    competition = args.competition or _competition(args.folder)
    if args.version < 1:
        raise ConfigError(f"--version {args.version}: push prints the number")
    if not args.despite_status:
        now = status.ask(kernel)
        if now.state != "COMPLETE":
            raise RefusedError(f"{now}: nothing was submitted; wait for its end, or for another version give --despite-status")
    arguments = ["competitions", "submit", competition, "-k", kernel, "-v", str(args.version), "-f", args.file, "-m", args.message]
    message, left = read_submit(call(arguments, _SECONDS))
    print(f"{kernel} version {args.version} submitted to {competition}: {message}")
    if left is not None:
        print(f"submissions left today: {left}")
    return {"kernel": kernel, "version": args.version, "competition": competition, "message": message, "left_today": left}


def read_submit(said: ClientResult) -> tuple[str, int | None]:
    """What the text of `kaggle competitions submit` means: Kaggle's own words, and how many submissions are left today.

    Raises:
        RefusedError: where it does not say that it has taken the submission.
    """
    taken = re.search(r"^.*Successfully submitted.*$", said.text, re.MULTILINE)
    if said.code or taken is None:
        raise said.refused("not submitted")
    left = re.search(r"^(\d+) submissions remaining today", said.text, re.MULTILINE)
    return taken[0].strip(), int(left[1]) if left else None


def _competition(folder: Path) -> str:
    value, _ = read_object(folder / METADATA)
    named = value.get("competition_sources")
    if not isinstance(named, list) or len(named) != 1:
        raise ConfigError(f"{folder / METADATA}: competition_sources does not name one competition; give --competition")
    return str(named[0])
