"""`arc-submit kaggle output`: fetch what a kernel's last run left, and look at it before it is believed.

The client writes whatever a download answers into the file, an error page too, and exits with 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from arc_submit.durations import parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle import status
from arc_submit.kaggle.client import RefusedError, call

SUBMISSION = "submission.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    status.add_kernel(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, new or empty")
    parser.add_argument("--limit", default="30m", metavar="TIME", help="after which the client is given up (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=15, help="lines of the log's end to print (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle output`; returns its figures."""
    kernel = status.which_kernel(args.kernel)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ConfigError(f"{args.out}: not an empty folder, and old files would pass for new ones; name another")
    said = call(["kernels", "output", kernel, "-p", str(args.out)], parse_duration(args.limit))
    if said.code:
        raise said.refused("not fetched")
    files = sorted(path for path in args.out.rglob("*") if path.is_file())
    log = args.out / f"{kernel.split('/')[1]}.log"
    for path in files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if args.lines > 0 and log.is_file():
        print("\n".join(log_lines(log)[-args.lines :]))
    figures: dict[str, Any] = {"kernel": kernel, "files": [str(path) for path in files], "tasks": None}
    if args.out / SUBMISSION not in files:
        raise RefusedError(f"{kernel}: left no {SUBMISSION}; its log above may say why", figures)
    figures["tasks"] = look_at_submission(args.out / SUBMISSION)
    print(f"{args.out / SUBMISSION}: {figures['tasks']} tasks, each with two attempts; arc-submit score checks it against a test file")
    return figures


def look_at_submission(path: Path) -> int:
    """How many tasks a fetched submission has.

    Raises:
        RefusedError: where it is not one: an error page, a part of a file.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        raise RefusedError(
            f"{path}: not JSON, the download went wrong; it begins {text[:60]!r}; fetch it again into another folder"
        ) from None
    whole = isinstance(value, dict) and all(
        isinstance(entries, list)
        and entries
        and all(isinstance(entry, dict) and {"attempt_1", "attempt_2"} <= set(entry) for entry in entries)
        for entries in value.values()
    )
    if not whole or not value:
        raise RefusedError(f"{path}: not a submission: an object of lists of attempt_1 and attempt_2 is expected; it begins {text[:60]!r}")
    return len(value)


def log_lines(path: Path) -> list[str]:
    """The lines of a kernel's log, which Kaggle keeps as JSON with a piece of output in each entry; as they are where it is not that."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return "".join(str(entry["data"]) for entry in json.loads(text)).splitlines()
    except (ValueError, KeyError, TypeError):
        return text.splitlines()
