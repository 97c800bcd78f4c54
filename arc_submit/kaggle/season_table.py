"""The table of a season: a JSON object a line for every push, submission, score and uploaded bundle, appended and never changed.

The file is season.jsonl of the project, or any other that a command is given. It holds no credentials: a text that looks like one is
masked. Does not know what the records mean, nor Kaggle.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arc_submit.arc.files import append_lines, read_json_lines, read_text
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.client import mask_credentials
from arc_submit.kaggle.secret_scan import credential_kind

TABLE = "season.jsonl"


def add_table(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the table."""
    help = f"table of the season's pushes and scores (default: {TABLE} of the project)"
    parser.add_argument("--table", type=Path, metavar="FILE", help=help)


def project_of(folder: Path) -> Path:
    """The checkout that a folder is in; the folder itself where it is in none."""
    above = folder.resolve()
    return next((one for one in (above, *above.parents) if (one / ".git").exists() or (one / "pyproject.toml").is_file()), above)


def table_of(folder: Path, given: Path | None) -> Path:
    """The table for the kernel in a folder.

    Raises:
        ConfigError: where it cannot be written.
    """
    path = given or project_of(folder) / TABLE
    parent = next(one for one in path.absolute().parents if one.exists())
    if path.is_dir() or not os.access(path if path.exists() else parent, os.W_OK):
        raise ConfigError(f"{path}: the season's table cannot be written; name another with --table")
    return path


def append_record(path: Path, kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Append a record with its kind and the time (UTC); returns it as it is written.

    Raises:
        DataError: where the file cannot be written.
    """
    whole = _without_credentials({"kind": kind, "time": datetime.now(UTC).isoformat(timespec="seconds"), **record})
    append_lines(path, json.dumps(whole) + "\n")
    return dict(whole)


def note_record(path: Path, kind: str, record: dict[str, Any]) -> None:
    """Append a record of what Kaggle has accepted already; where that fails, say so and go on."""
    try:
        append_record(path, kind, record)
    except DataError as error:
        print(f"not in the season's table: {error}", flush=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a table in their order, none where there is no file; says how many lines are broken and left out.

    Raises:
        DataError: where the file cannot be read.
    """
    if not path.exists():
        return []
    records = [record for record in read_json_lines(path) if isinstance(record.get("kind"), str)]
    lines = sum(bool(line.strip()) for line in read_text(path, "replace").split("\n"))
    if len(records) < lines:
        print(f"{path}: {lines - len(records)} of {lines} lines are no records, and are left out")
    return records


def _without_credentials(value: Any) -> Any:
    if isinstance(value, str):
        return "***" if credential_kind(value) else mask_credentials(value)
    if isinstance(value, dict):
        return {_without_credentials(str(key)): _without_credentials(one) for key, one in value.items()}
    return [_without_credentials(one) for one in value] if isinstance(value, list | tuple) else value
