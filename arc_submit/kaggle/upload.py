"""`arc-submit kaggle upload`: makes a data set of a folder, or a new version of one, and verifies that every file has arrived.

The client exits with 0 if a file was lost on the way, and leaves folders out by default; here they are uploaded as tar archives, which
Kaggle unpacks. Sources: kaggle 2.2.4, dataset_create_new_cli, dataset_create_version_cli and upload_files.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.durations import format_duration, parse_duration
from arc_submit.kaggle.client import ClientResult, KaggleError, run_client
from arc_submit.kaggle.dataset_check import check_dataset, uploaded_names
from arc_submit.kaggle.findings import add_ignore_option, raise_on_errors
from arc_submit.kaggle.install import BUNDLE_MANIFEST
from arc_submit.kaggle.season_table import add_table, note_record, table_of

_CLIENT_TIMEOUT = 120.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder with dataset-metadata.json and the files")
    parser.add_argument("--message", default="made by arc-submit", help="notes of a new version (default: %(default)s)")
    parser.add_argument("--limit", default="3h", metavar="TIME", help="time limit of the upload (default: %(default)s)")
    parser.add_argument("--wait", default="20m", metavar="TIME", help="time limit until the data set is ready (default: %(default)s)")
    parser.add_argument("--every", default="15s", metavar="TIME", help="between two requests (default: %(default)s)")
    add_table(parser)
    add_ignore_option(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    metadata, findings = check_dataset(args.folder)
    raise_on_errors(findings, "nothing was uploaded", args.ignore)
    dataset = str(metadata["id"])
    names = uploaded_names(args.folder)
    exists = _fetch_state(dataset) is not None
    archives = ", folders as archives" if any((args.folder / name).is_dir() for name in names) else ""
    print(f"{dataset}: {'a new version' if exists else 'new'}, {len(names)} files{archives}", flush=True)
    arguments = ["datasets", *(["version", "-m", args.message] if exists else ["create"]), "-p", str(args.folder), "-r", "tar"]
    bundle = args.folder / BUNDLE_MANIFEST
    commit = read_json(bundle).get("commit") if bundle.is_file() else None
    url = _parse_upload(run_client(arguments, parse_duration(args.limit), show_progress=True), names)
    print(f"{dataset}: all {len(names)} have arrived, {url}", flush=True)
    if commit:
        note_record(table_of(Path(), args.table), "upload", {"dataset": dataset, "commit": commit})
    seconds = _wait_until_ready(dataset, parse_duration(args.wait), parse_duration(args.every))
    print(f"{dataset}: ready after {format_duration(seconds)}; attach it as {dataset!r} in dataset_sources")
    return {"dataset": dataset, "new": not exists, "files": names, "url": url, "ready": True}


def _fetch_state(dataset: str) -> str | None:
    """The state of a data set, such as "ready"; None if it does not exist. Raises KaggleError if Kaggle does not answer."""
    result = run_client(["datasets", "status", dataset], _CLIENT_TIMEOUT)
    # Kaggle answers 403 for a data set that does not exist, as for one that the user must not see.
    if result.code and re.search(r"\b(403|404)\b|not found|permission", result.text, re.IGNORECASE) and "Authentication" not in result.text:
        return None
    if result.code or not result.text.strip():
        raise result.error("no answer whether the data set exists")
    return result.text.strip().splitlines()[-1].lower()


def _parse_upload(result: ClientResult, names: list[str]) -> str:
    """The data set's address, from the client's text; raises KaggleError if it was not made, or lacks one of the names."""
    created = re.search(r"is being created\. Please check progress at (\S*)", result.text)
    lost = re.findall(r"^(?:Upload unsuccessful|Skipping(?: folder)?): ([^;\n]+)", result.text, re.MULTILINE)
    arrived = set(re.findall(r"^Upload successful: (.+) \(\d[^)]*\)$", result.text, re.MULTILINE))
    lost += [name for name in names if name not in lost and not {name, f"{name}.tar"} & arrived]
    if result.code or created is None or "creation error" in result.text:
        raise result.error("not made")
    if lost:
        raise KaggleError(f"kaggle {result.command}: made, but without {', '.join(lost)}; upload it again")
    return created[1]


def _wait_until_ready(dataset: str, seconds: float, every: float) -> float:
    """Wait until notebooks can use a data set; returns the seconds that it took, and raises KaggleError if it failed or takes too long."""
    start = time.monotonic()
    while True:
        state = _fetch_state(dataset)
        if state == "ready":
            return time.monotonic() - start
        if state in ("failed", "deleted"):
            raise KaggleError(f"{dataset}: Kaggle reports {state}; see its page")
        if time.monotonic() - start >= seconds:
            problem = f"not ready after {format_duration(seconds)} (Kaggle reports {state}); a kernel pushed now would not get it"
            raise KaggleError(f"{dataset}: {problem}")
        time.sleep(min(every, max(0.1, start + seconds - time.monotonic())))
