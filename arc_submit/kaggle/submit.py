"""`arc-submit kaggle submit`: submits a version of a kernel to its competition, and succeeds only if Kaggle confirms it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.kaggle import status
from arc_submit.kaggle.client import ClientResult, KaggleError, run_client
from arc_submit.kaggle.findings import read_json_object
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA
from arc_submit.kaggle.kernel_status import fetch_status
from arc_submit.kaggle.output import SUBMISSION
from arc_submit.kaggle.season_table import add_table, note_record, table_of

_CLIENT_TIMEOUT = 300.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, nargs="?", default=Path(), help=f"folder with {KERNEL_METADATA} (default: this one)")
    add("--version", type=int, required=True, help="of the kernel, as push printed it")
    add("--message", required=True, help="your description of this submission")
    add("--competition", help="its slug (default: the only one of competition_sources)")
    add("--file", default=SUBMISSION, help="the kernel's output (default: %(default)s)")
    add_table(parser)
    help = "submit an earlier version although the kernel's last run is not complete"
    add("--ignore-status", "--despite-status", dest="ignore_status", action="store_true", help=help)


def main(args: argparse.Namespace) -> dict[str, Any]:
    kernel = status.resolve_kernel(str(args.folder))
    competition = args.competition or _read_competition(args.folder)
    if args.version < 1:
        raise ConfigError(f"--version {args.version}: push prints the number")
    table = table_of(args.folder, args.table)
    if not args.ignore_status:
        last_run = fetch_status(kernel)
        if last_run.state != "COMPLETE":
            raise KaggleError(f"{last_run}: nothing was submitted; wait for its end, or give --ignore-status for another version")
    arguments = ["competitions", "submit", competition, "-k", kernel, "-v", str(args.version), "-f", args.file, "-m", args.message]
    message, left = _parse_submit(run_client(arguments, _CLIENT_TIMEOUT))
    print(f"{kernel} version {args.version} submitted to {competition}: {message}")
    note_record(table, "submit", {"kernel": kernel, "version": args.version, "competition": competition, "message": args.message})
    if left is not None:
        print(f"submissions left today: {left}")
    return {"kernel": kernel, "version": args.version, "competition": competition, "message": message, "left_today": left}


def _parse_submit(result: ClientResult) -> tuple[str, int | None]:
    """Kaggle's confirmation, and the number of submissions left today; raises KaggleError if there is no confirmation."""
    confirmation = re.search(r"^.*Successfully submitted.*$", result.text, re.MULTILINE)
    if result.code or confirmation is None:
        raise result.error("not submitted")
    left = re.search(r"^(\d+) submissions remaining today", result.text, re.MULTILINE)
    return confirmation[0].strip(), int(left[1]) if left else None


def _read_competition(folder: Path) -> str:
    metadata, _ = read_json_object(folder / KERNEL_METADATA)
    competitions = metadata.get("competition_sources")
    if not isinstance(competitions, list) or len(competitions) != 1:
        raise ConfigError(f"{folder / KERNEL_METADATA}: competition_sources does not name exactly one competition; give --competition")
    return str(competitions[0])
