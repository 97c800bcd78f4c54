"""`arc-submit kaggle status`: the state of a kernel's last run, once or to its end; the exit code is 1 if the run failed."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.client import KaggleError
from arc_submit.kaggle.follow import follow_log
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA, read_kernel_id
from arc_submit.kaggle.kernel_status import FAILED, fetch_status

_LONGEST_RUN = "36h"  # a session takes 12 hours at most; the rest is for waiting before it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_kernel(parser)
    add_wait(parser)
    parser.add_argument("--follow", action="store_true", help="print the run's log as it comes, to the run's end")


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a kernel."""
    parser.add_argument("kernel", nargs="?", help=f"owner/slug, or a folder with its {KERNEL_METADATA} (default: this folder)")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the options for following a run."""
    parser.add_argument("--wait", metavar="TIME", help="follow the run to its end, for at most this time")
    parser.add_argument("--every", default="1m", metavar="TIME", help="between two requests (default: %(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    kernel = resolve_kernel(args.kernel)
    if args.follow:
        return follow_log(kernel, parse_duration(args.wait or _LONGEST_RUN), parse_duration(args.every))
    return follow_run(kernel, parse_duration(args.wait) if args.wait else 0.0, parse_duration(args.every))


def resolve_kernel(name: str | None) -> str:
    """owner/slug from a command's argument.

    Raises:
        ConfigError: if it is neither owner/slug nor a folder with metadata, or has a version, which the client silently ignores.
    """
    if name is None or Path(name).is_dir():
        return read_kernel_id(Path(name or "."))
    if name.count("/") != 1 or not all(name.split("/")):
        problem = "the client would drop the version and use the last one" if name.count("/") == 2 else "not owner/slug"
        raise ConfigError(f"kernel {name}: {problem}; write owner/slug")
    return name


def follow_run(kernel: str, seconds: float, every: float) -> dict[str, Any]:
    """Print a run's state and every change of it until the run has ended or the time is over; returns the figures.

    Args:
        kernel: owner/slug.
        seconds: how long to follow the run; 0 prints the state once.
        every: seconds between two requests.

    Raises:
        KaggleError: if the run has failed, with the figures.
    """
    start = time.monotonic()
    last = None
    while True:
        status = fetch_status(kernel)
        if status != last:
            print(f"{status} (after {format_duration(time.monotonic() - start)})" if last else status, flush=True)
        last = status
        remaining = start + seconds - time.monotonic()
        figures = asdict(status)
        if status.state in FAILED:
            raise KaggleError(f"{status}; see its log: arc-submit kaggle output {kernel} --out output", figures)
        if status.state == "COMPLETE" or remaining <= 0:
            return figures
        time.sleep(min(every, remaining))
