"""`arc-submit kaggle upload`: make a data set of a folder, or a new version of one, and count that every file has arrived.

The client exits with 0 where a file was lost on the way, and leaves folders out unless told otherwise: they go as tar archives, which
Kaggle unpacks. Sources: kaggle 2.2.4, dataset_create_new_cli, dataset_create_version_cli and upload_files.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.kaggle.client import ClientResult, RefusedError, call
from arc_submit.kaggle.dataset import check_dataset, sent_files
from arc_submit.kaggle.findings import add_despite, refuse_errors

_SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder that holds dataset-metadata.json and the files")
    parser.add_argument("--message", default="made by arc-submit", help="notes of a new version (default: %(default)s)")
    parser.add_argument("--limit", default="3h", metavar="TIME", help="after which an upload is given up (default: %(default)s)")
    parser.add_argument("--wait", default="20m", metavar="TIME", help="for Kaggle to make it ready, at most (default: %(default)s)")
    parser.add_argument("--every", default="15s", metavar="TIME", help="between two looks (default: %(default)s)")
    add_despite(parser)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle upload`; returns its figures."""
    metadata, findings = check_dataset(args.folder)
    refuse_errors(findings, "nothing was uploaded", args.despite)
    dataset = str(metadata["id"])
    files = sent_files(args.folder)
    there = state(dataset) is not None
    archives = ", folders as archives" if any((args.folder / name).is_dir() for name in files) else ""
    print(f"{dataset}: {'a new version' if there else 'new'}, {len(files)} files{archives}", flush=True)
    arguments = ["datasets", *(["version", "-m", args.message] if there else ["create"]), "-p", str(args.folder), "-r", "tar"]
    url = read_upload(call(arguments, parse_duration(args.limit), show=True), files)
    print(f"{dataset}: all {len(files)} have arrived, {url}", flush=True)
    seconds = wait_until_ready(dataset, parse_duration(args.wait), parse_duration(args.every))
    print(f"{dataset}: ready after {format_duration(seconds)}; attach it as {dataset!r} in dataset_sources")
    return {"dataset": dataset, "new": not there, "files": files, "url": url, "ready": True}


def state(dataset: str) -> str | None:
    """The state of a data set, such as "ready", or None where there is none of that name.

    Raises:
        RefusedError: where Kaggle does not say: no credentials, no connection.
    """
    said = call(["datasets", "status", dataset], _SECONDS)
    # To someone who may not see a data set, Kaggle says 403 where there is none.
    if said.code and re.search(r"\b(403|404)\b|not found|permission", said.text, re.IGNORECASE) and "Authentication" not in said.text:
        return None
    if said.code or not said.text.strip():
        raise said.refused("no answer whether the data set is there")
    return said.text.strip().splitlines()[-1].lower()


def read_upload(said: ClientResult, files: list[str]) -> str:
    """What the text of `kaggle datasets create` or `version` means: the data set's address.

    Raises:
        RefusedError: where it was not made, or a file is missing from it.
    """
    made = re.search(r"is being created\. Please check progress at (\S*)", said.text)
    lost = re.findall(r"^(?:Upload unsuccessful|Skipping(?: folder)?): ([^;\n]+)", said.text, re.MULTILINE)
    arrived = set(re.findall(r"^Upload successful: (.+) \(\d[^)]*\)$", said.text, re.MULTILINE))
    lost += [name for name in files if name not in lost and not {name, f"{name}.tar"} & arrived]
    if said.code or made is None or "creation error" in said.text:
        raise said.refused("not made")
    if lost:
        raise RefusedError(f"kaggle {said.command}: made, but without {', '.join(lost)}; upload it again")
    return made[1]


def wait_until_ready(dataset: str, seconds: float, every: float) -> float:
    """Wait until a notebook can have the data set; returns how long it took.

    Raises:
        RefusedError: where it failed or is not ready in time.
    """
    began = time.monotonic()
    while True:
        now = state(dataset)
        if now == "ready":
            return time.monotonic() - began
        if now in ("failed", "deleted"):
            raise RefusedError(f"{dataset}: Kaggle says {now}; see its page")
        if time.monotonic() - began >= seconds:
            raise RefusedError(
                f"{dataset}: not ready after {format_duration(seconds)} (Kaggle says {now}); a kernel pushed now would not get it"
            )
        time.sleep(min(every, max(0.1, began + seconds - time.monotonic())))
