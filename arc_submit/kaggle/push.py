"""`arc-submit kaggle push`: checks a kernel, pushes it with the real client, and compares Kaggle's record of it with its metadata.

The client exits with 0 if the server refused the push, and does not print which model sources were left out. So its text is parsed and
the kernel's metadata are downloaded again. Sources: kaggle 2.2.4, kernels_push_cli and kernels_pull.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.durations import parse_duration
from arc_submit.kaggle import check, status
from arc_submit.kaggle.client import ClientResult, KaggleError, run_client
from arc_submit.kaggle.kernel_metadata import ACCELERATORS, KERNEL_METADATA, SOURCES, read_kernel_id, read_switch, requested_machine
from arc_submit.kaggle.push_record import push_record
from arc_submit.kaggle.season_table import add_table, note_record, read_records, table_of

_CLIENT_TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class PushedVersion:
    """A version of a kernel (owner/slug) that Kaggle has accepted; None where it gave no number."""

    kernel: str
    version: int | None
    url: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    check.add_arguments(parser)
    add_table(parser)
    help = "directory of the dry run whose score is kept beside the push (default: the newest of this notebook below runs/)"
    parser.add_argument("--run", type=Path, metavar="DIR", help=help)
    parser.add_argument("--no-compare", action="store_true", help="do not compare Kaggle's record of the kernel")
    status.add_wait(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    checked = check.check_push(args, "nothing was pushed")
    table = table_of(args.folder, args.table)
    record = push_record(args.folder, args.accelerator, args.run, read_records(table))
    session = args.session or check.SESSION
    pushed = _push_kernel(args.folder, session, args.accelerator)
    print(f"{pushed.kernel}: version {pushed.version} pushed, {pushed.url}")
    note_record(table, "push", {**asdict(pushed), **record, "session": session, "gpu_hours": checked["gpu_hours"]})
    if local := record["local"]:
        print(f"its dry run {local['run']} solved {local['per_task']:.2f} % of {local['tasks']} tasks")
    if not args.no_compare:
        differences = _compare_record(args.folder, pushed.kernel, args.accelerator)
        for difference in differences:
            print(difference)
        if differences:
            problem = f"{pushed.kernel}: version {pushed.version} was pushed, but Kaggle's record differs from the metadata"
            raise KaggleError(f"{problem}; correct it and push again, or see the notebook's page", asdict(pushed))
        print("Kaggle's record agrees with the metadata")
    figures = asdict(pushed)
    if args.wait:
        figures |= status.follow_run(pushed.kernel, parse_duration(args.wait), parse_duration(args.every))
    else:
        print(f"its first run has begun: arc-submit kaggle status {pushed.kernel} --follow")
    return figures


def _push_kernel(folder: Path, session: str, accelerator: str | None) -> PushedVersion:
    """Push a kernel; raises KaggleError if Kaggle did not accept all of it."""
    arguments = ["kernels", "push", "-p", str(folder), "-t", str(round(parse_duration(session)))]
    result = run_client(arguments + (["--accelerator", accelerator] if accelerator else []), _CLIENT_TIMEOUT)
    return _parse_push(read_kernel_id(folder), result)


def _parse_push(kernel: str, result: ClientResult) -> PushedVersion:
    accepted = re.search(r"Kernel version (?:(\d+) )?successfully pushed\.\s+Please check progress at (\S*)", result.text)
    if result.code or accepted is None:
        raise result.error("not pushed")
    version, url = accepted[1], accepted[2]
    if not url:
        raise result.error("the client reports a push, but Kaggle gave no address")
    left_out = re.findall(r"^The following are not valid .*$", result.text, re.MULTILINE)
    if left_out:
        raise KaggleError(f"kaggle {result.command}: pushed as version {version}, but incomplete: {' '.join(left_out)}")
    if "does not resolve to the specified id" in result.text:
        raise KaggleError(f"kaggle {result.command}: pushed under another name than {kernel}: {url}; make title and id agree")
    return PushedVersion(kernel, int(version) if version else None, url)


def _compare_record(folder: Path, kernel: str, accelerator: str | None) -> list[str]:
    """A line for each difference between Kaggle's record of a kernel and its metadata; the record may lag behind the push."""
    metadata = read_json(folder / KERNEL_METADATA)
    differences: list[str] = []
    for attempt in range(3):
        time.sleep(2.0 * attempt)
        with tempfile.TemporaryDirectory() as scratch:
            result = run_client(["kernels", "pull", kernel, "-p", scratch, "-m"], _CLIENT_TIMEOUT)
            path = Path(scratch) / KERNEL_METADATA
            if result.code or not path.is_file():
                raise result.error("pushed, but Kaggle's record of it cannot be downloaded")
            record = read_json(path)
        differences = list(_differences(metadata, record, accelerator))
        if not differences:
            break
    return differences


def _differences(metadata: dict[str, Any], record: dict[str, Any], accelerator: str | None) -> Iterator[str]:
    for name in SOURCES:
        attached = record.get(name) or []
        missing = [source for source in metadata.get(name) or [] if not any(_same_source(source, other) for other in attached)]
        if missing:
            yield f"{name}: Kaggle has not attached {', '.join(missing)}; check its spelling, that it is ready, and that you may use it"
    if record.get("enable_internet") and not read_switch(metadata, "enable_internet", True):
        yield "enable_internet: is on at Kaggle; no submission can be made from it"
    if record.get("is_private") is False and read_switch(metadata, "is_private", True):
        yield "is_private: is off at Kaggle, and everyone can read the notebook; make it private on its page"
    if record.get("enable_tpu") and not read_switch(metadata, "enable_tpu", False):
        yield "enable_tpu: is on at Kaggle"
    shape, recorded_shape = accelerator or requested_machine(metadata), record.get("machine_shape")
    if shape and recorded_shape != shape:
        yield f"machine_shape: Kaggle has {recorded_shape or 'none'} and not {shape}"
    elif not shape and read_switch(metadata, "enable_gpu", False) and recorded_shape not in (None, "", "None", *ACCELERATORS):
        yield f"machine_shape: none was requested, and Kaggle has {recorded_shape}, for which the image's torch has no code"
    if record.get("enable_gpu") and not shape and not read_switch(metadata, "enable_gpu", False):
        yield "enable_gpu: is on at Kaggle, and takes hours of a GPU"
    if record.get("enable_gpu") is False and read_switch(metadata, "enable_gpu", False):
        yield "enable_gpu: is off at Kaggle"


def _same_source(source: str, other: str) -> bool:
    """Whether two names of a source agree; the version counts only if both have one."""
    first, second = source.lower().split("/"), other.lower().split("/")
    shorter = min(len(first), len(second))
    return abs(len(first) - len(second)) <= 1 and first[:shorter] == second[:shorter]
