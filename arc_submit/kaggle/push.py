"""`arc-submit kaggle push`: check a kernel, push it with the real client, and believe only what its text and Kaggle's own record say.

The client exits with 0 where the server refused the push, and does not print which model sources were left out: so the kernel's metadata
are fetched again and compared with what was sent. Sources: kaggle 2.2.4, kernels_push_cli and kernels_pull.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.durations import parse_duration
from arc_submit.kaggle import check, status
from arc_submit.kaggle.client import ClientResult, RefusedError, call
from arc_submit.kaggle.findings import refuse_errors
from arc_submit.kaggle.metadata import METADATA, SOURCES, asked_machine, kernel_name

_SECONDS = 300.0


@dataclass(frozen=True)
class Push:
    """A version that Kaggle has taken.

    Attributes:
        kernel: owner/slug.
        version: its number, None where Kaggle did not say.
        url: where to look at it.
    """

    kernel: str
    version: int | None
    url: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    check.add_kernel_options(parser)
    parser.add_argument("--no-compare", action="store_true", help="do not fetch the kernel's metadata again to compare them")
    status.add_wait(parser)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle push`; returns its figures."""
    findings = check.check_kernel(args.folder, args.accelerator, args.session)
    refuse_errors(findings, "nothing was pushed", args.despite)
    pushed = push(args.folder, args.session, args.accelerator)
    print(f"{pushed.kernel}: version {pushed.version} pushed, {pushed.url}")
    if not args.no_compare:
        differences = compare(args.folder, pushed.kernel, args.accelerator)
        for difference in differences:
            print(difference)
        if differences:
            remedy = "correct it and push again, or see the notebook's page"
            raise RefusedError(f"{pushed.kernel}: version {pushed.version} was pushed, but is not what was meant; {remedy}", asdict(pushed))
        print("Kaggle's record of it says what was sent")
    figures = asdict(pushed)
    if args.wait:
        figures |= status.follow(pushed.kernel, parse_duration(args.wait), parse_duration(args.every))
    else:
        print(f"its first run has begun: arc-submit kaggle status {pushed.kernel} --wait 1h")
    return figures


def push(folder: Path, session: str, accelerator: str | None = None) -> Push:
    """Push a kernel.

    Raises:
        RefusedError: where Kaggle took it not, or not whole, whatever the exit code is.
    """
    arguments = ["kernels", "push", "-p", str(folder), "-t", str(round(parse_duration(session)))]
    said = call(arguments + (["--accelerator", accelerator] if accelerator else []), _SECONDS)
    return read_push(kernel_name(folder), said)


def read_push(kernel: str, said: ClientResult) -> Push:
    """What the text of `kaggle kernels push` means.

    Raises:
        RefusedError: see push.
    """
    taken = re.search(r"Kernel version (?:(\d+) )?successfully pushed\.\s+Please check progress at (\S*)", said.text)
    if said.code or taken is None:
        raise said.refused("not pushed")
    if not taken[2]:
        raise said.refused("the client calls it pushed, but Kaggle gave no address")
    left_out = re.findall(r"^The following are not valid .*$", said.text, re.MULTILINE)
    if left_out:
        raise RefusedError(f"kaggle {said.command}: pushed as version {taken[1]}, but not whole: {' '.join(left_out)}")
    if "does not resolve to the specified id" in said.text:
        raise RefusedError(f"kaggle {said.command}: pushed under another name than {kernel}: {taken[2]}; let title and id agree")
    return Push(kernel, int(taken[1]) if taken[1] else None, taken[2])


def compare(folder: Path, kernel: str, accelerator: str | None, tries: int = 3) -> list[str]:
    """What Kaggle's record of a kernel says otherwise than the folder's metadata: a line for each difference.

    Args:
        tries: how often to ask; the record may lag behind the push.

    Raises:
        RefusedError: where the record cannot be had.
    """
    meant = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    differences: list[str] = []
    for pause in range(tries):
        time.sleep(2.0 * pause)
        with tempfile.TemporaryDirectory() as there:
            said = call(["kernels", "pull", kernel, "-p", there, "-m"], _SECONDS)
            if said.code or not (Path(there) / METADATA).is_file():
                raise said.refused("pushed, but Kaggle's record of it cannot be had")
            kept = json.loads((Path(there) / METADATA).read_text(encoding="utf-8"))
        differences = list(_differences(meant, kept, accelerator))
        if not differences:
            break
    return differences


def _differences(meant: dict[str, Any], kept: dict[str, Any], accelerator: str | None) -> list[str]:
    lines = []
    for name in SOURCES:
        missing = [source for source in meant.get(name, []) if not any(_same(source, other) for other in kept.get(name) or [])]
        if missing:
            lines.append(f"{name}: Kaggle has not attached {', '.join(missing)}; is it spelt right, ready, and yours to use?")
    internet = meant.get("enable_internet") not in (False, "false", "False")
    if not internet and kept.get("enable_internet"):
        lines.append("enable_internet: is on at Kaggle; no submission can be made from it")
    shape = accelerator or asked_machine(meant)
    if shape and kept.get("machine_shape") and kept["machine_shape"] != shape:
        lines.append(f"machine_shape: Kaggle has {kept['machine_shape']} and not {shape}")
    return lines


def _same(source: str, other: str) -> bool:
    """Whether two names of a source agree, the version left aside where only one has it."""
    first, second = source.lower().split("/"), other.lower().split("/")
    shorter = min(len(first), len(second))
    return abs(len(first) - len(second)) <= 1 and first[:shorter] == second[:shorter]
