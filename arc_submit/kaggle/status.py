"""`arc-submit kaggle status`: how a kernel's last run stands, and an exit code that says so; the client's own is 0 on a failed run too."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.client import ClientResult, RefusedError, call
from arc_submit.kaggle.metadata import METADATA, kernel_name

FAILED = ("ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED")
GOING = ("QUEUED", "RUNNING", "NEW_SCRIPT")
_SECONDS = 120.0


@dataclass(frozen=True)
class Status:
    """How a kernel's last run stands.

    Attributes:
        kernel: owner/slug.
        state: QUEUED, RUNNING, COMPLETE, ERROR, CANCEL_REQUESTED, CANCEL_ACKNOWLEDGED or NEW_SCRIPT.
        message: why it failed, where Kaggle says so.
    """

    kernel: str
    state: str
    message: str

    def __str__(self) -> str:
        return f"{self.kernel}: {self.state}{': ' if self.message else ''}{self.message}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_kernel(parser)
    add_wait(parser)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """Which kernel a command is about."""
    parser.add_argument("kernel", nargs="?", help=f"owner/slug, or a folder with its {METADATA} (default: this folder)")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """How long to look on."""
    parser.add_argument("--wait", metavar="TIME", help="look on until the run has ended, at most so long")
    parser.add_argument("--every", default="1m", metavar="TIME", help="between two looks (default: %(default)s)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle status`; returns its figures."""
    kernel = which_kernel(args.kernel)
    return follow(kernel, parse_duration(args.wait) if args.wait else 0.0, parse_duration(args.every))


def which_kernel(given: str | None) -> str:
    """owner/slug from what a command was given.

    Raises:
        ConfigError: where it is neither that nor a folder with metadata, or names a version, which the client would ignore in silence.
    """
    if given is None or Path(given).is_dir():
        return kernel_name(Path(given or "."))
    if given.count("/") != 1 or not all(given.split("/")):
        said = "the client would drop the version and tell of the last one" if given.count("/") == 2 else "not owner/slug"
        raise ConfigError(f"kernel {given}: {said}; write owner/slug")
    return given


def follow(kernel: str, seconds: float, every: float) -> dict[str, Any]:
    """Print the state, and every change of it until the run has ended or the time is over; returns the figures.

    Raises:
        RefusedError: where the run has failed, with the figures.
    """
    began = time.monotonic()
    last = None
    while True:
        now = ask(kernel)
        if now != last:
            print(f"{now} (after {format_duration(time.monotonic() - began)})" if last else now, flush=True)
        last = now
        left = began + seconds - time.monotonic()
        figures = {"kernel": kernel, "state": now.state, "message": now.message}
        if now.state in FAILED:
            remedy = f"see its log: arc-submit kaggle output {kernel} --out output"
            raise RefusedError(f"{now}; {remedy}", figures)
        if now.state == "COMPLETE" or left <= 0:
            return figures
        time.sleep(min(every, left))


def ask(kernel: str) -> Status:
    """The state of a kernel's last run.

    Raises:
        RefusedError: where Kaggle does not say.
    """
    return read_status(kernel, call(["kernels", "status", kernel], _SECONDS))


def read_status(kernel: str, said: ClientResult) -> Status:
    """What the text of `kaggle kernels status` means.

    Raises:
        RefusedError: where it holds no state that is known.
    """
    found = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', said.text)
    if said.code or found is None or found[1].upper() not in (*FAILED, *GOING, "COMPLETE"):
        raise said.refused("no status")
    message = re.search(r'^Failure message: "(.*)"$', said.text, re.MULTILINE | re.DOTALL)
    return Status(kernel, found[1].upper(), " ".join(message[1].split()) if message else "")
