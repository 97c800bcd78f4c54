"""`arc-submit kaggle status`: prints the state of a kernel's last run; unlike the client, it exits with 1 if the run has failed."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.client import ClientResult, KaggleError, run_client
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA, read_kernel_id

_FAILED = ("ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
_STATES = (*_FAILED, "QUEUED", "RUNNING", "NEW_SCRIPT", "COMPLETE")
_CLIENT_TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class KernelStatus:
    """The state of a kernel's last run."""

    kernel: str  # owner/slug
    state: str  # one of _STATES
    message: str  # Kaggle's reason of a failure; empty if it gives none

    def __str__(self) -> str:
        return f"{self.kernel}: {self.state}{': ' if self.message else ''}{self.message}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_kernel(parser)
    add_wait(parser)


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a kernel."""
    parser.add_argument("kernel", nargs="?", help=f"owner/slug, or a folder with its {KERNEL_METADATA} (default: this folder)")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the options for following a run."""
    parser.add_argument("--wait", metavar="TIME", help="follow the run to its end, for at most this time")
    parser.add_argument("--every", default="1m", metavar="TIME", help="between two requests (default: %(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    kernel = resolve_kernel(args.kernel)
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
        if status.state in _FAILED:
            raise KaggleError(f"{status}; see its log: arc-submit kaggle output {kernel} --out output", figures)
        if status.state == "COMPLETE" or remaining <= 0:
            return figures
        time.sleep(min(every, remaining))


def fetch_status(kernel: str) -> KernelStatus:
    """The state of a kernel's last run; KaggleError if Kaggle's answer holds no known state."""
    return _parse_status(kernel, run_client(["kernels", "status", kernel], _CLIENT_TIMEOUT))


def _parse_status(kernel: str, result: ClientResult) -> KernelStatus:
    match = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', result.text)
    if result.code or match is None or match[1].upper() not in _STATES:
        raise result.error("no status")
    message = re.search(r'^Failure message: "(.*)"$', result.text, re.MULTILINE | re.DOTALL)
    return KernelStatus(kernel, match[1].upper(), " ".join(message[1].split()) if message else "")
