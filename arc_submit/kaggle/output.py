"""`arc-submit kaggle output`: downloads the output of a kernel's last run and checks its submission.

The client writes any answer to a download into the file, even an error page, and exits with 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from arc_submit.durations import parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle import status
from arc_submit.kaggle.client import KaggleError, run_client

SUBMISSION = "submission.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    status.add_kernel(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, new or empty")
    parser.add_argument("--limit", default="30m", metavar="TIME", help="time limit of the download (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=15, help="number of the log's last lines to print (default: %(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    kernel = status.resolve_kernel(args.kernel)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ConfigError(f"{args.out}: not an empty folder, and old files would pass for new ones; name another")
    result = run_client(["kernels", "output", kernel, "-p", str(args.out)], parse_duration(args.limit))
    if result.code:
        raise result.error("not downloaded")
    files = sorted(path for path in args.out.rglob("*") if path.is_file())
    log = args.out / f"{kernel.split('/')[1]}.log"
    for path in files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if args.lines > 0 and log.is_file():
        print("\n".join(_log_lines(log)[-args.lines :]))
    figures: dict[str, Any] = {"kernel": kernel, "files": [str(path) for path in files], "tasks": None}
    submission = args.out / SUBMISSION
    if submission not in files:
        raise KaggleError(f"{kernel}: its output holds no {SUBMISSION}; see the log above", figures)
    figures["tasks"] = _count_tasks(submission)
    print(f"{submission}: {figures['tasks']} tasks, each with two attempts; arc-submit score checks it against a test file")
    return figures


def _count_tasks(path: Path) -> int:
    """The number of tasks in a downloaded submission; raises KaggleError if the file is an error page or truncated."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tasks = json.loads(text)
    except ValueError:
        problem = f"not JSON, the download failed; it begins {text[:60]!r}; download it again into another folder"
        raise KaggleError(f"{path}: {problem}") from None
    if not isinstance(tasks, dict) or not tasks or not all(map(_has_attempts, tasks.values())):
        raise KaggleError(f"{path}: not a submission, an object of lists of attempt_1 and attempt_2; it begins {text[:60]!r}")
    return len(tasks)


def _has_attempts(entries: Any) -> bool:
    if not isinstance(entries, list) or not entries:
        return False
    return all(isinstance(entry, dict) and {"attempt_1", "attempt_2"} <= set(entry) for entry in entries)


def _log_lines(path: Path) -> list[str]:
    """The lines of a kernel's log, which Kaggle writes as a JSON list of pieces of output; any other text is returned unchanged."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return "".join(str(entry["data"]) for entry in json.loads(text)).splitlines()
    except (ValueError, KeyError, TypeError):
        return text.splitlines()
