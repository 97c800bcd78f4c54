"""A folder that becomes a Kaggle data set: names that survive an upload, its metadata, and nothing in it that was not put there.

Kaggle strips `+` from file names, so a wheel named torch-2.13.0+cpu is stored under another name, which the manifest undoes; a file over
the part size is stored in parts. Knows nothing about what the files are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.files import format_size

DATASET_METADATA = "dataset-metadata.json"
INSTALLER = "arc_submit_install.py"
TOTAL_LIMIT = 100_000_000_000  # bytes of private data sets that an account has room for, at least
PART_SIZE = 2_000_000_000  # bytes of one stored file; no limit is documented, and an upload that breaks is repeated by file


def read_manifest(path: Path, missing: str) -> dict[str, Any]:
    """The manifest of a finished data set's folder.

    Raises:
        DataError: where there is none; it says what is `missing`.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{path.parent}: {missing}") from None
    return value


@dataclass(frozen=True)
class StoredFile:
    """A wheel of a data set: the name pip wants, the names it is stored under in order, bytes and sha256 of the whole."""

    file: str
    stored: tuple[str, ...]
    size: int
    sha256: str


def stored_names(file: str, size: int, part_size: int = PART_SIZE) -> tuple[str, ...]:
    """The names under which a file is stored: without a plus, and in parts where it is large."""
    safe = file.replace("+", "_plus_")
    parts = -(-size // part_size)
    return (safe,) if parts <= 1 else tuple(f"{safe}.part{number:03d}" for number in range(parts))


def split_into(source: Path, folder: Path, names: tuple[str, ...], part_size: int = PART_SIZE) -> None:
    """Move a file to its stored names."""
    if len(names) == 1:
        source.replace(folder / names[0])
        return
    with source.open("rb") as whole:
        for name in names:
            with (folder / name).open("wb") as part:
                left = part_size
                while left and (block := whole.read(min(left, 1 << 20))):
                    part.write(block)
                    left -= len(block)
    source.unlink()


def write_metadata(folder: Path, title: str, owner: str | None) -> str:
    """Write dataset-metadata.json unless there is one; returns the data set's id.

    Args:
        owner: Kaggle user name; None takes KAGGLE_USERNAME, else "your-name", which an upload refuses.

    Raises:
        ConfigError: where Kaggle would refuse the title, or make another slug of it.
    """
    path = folder / DATASET_METADATA
    if path.is_file():
        return str(json.loads(path.read_text(encoding="utf-8")).get("id"))
    if not 6 <= len(title) <= 50 or not re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", title):
        raise ConfigError(f"--title {title!r}: 6 to 50 letters and digits with single spaces are what Kaggle makes a clear slug of")
    name = f"{owner or os.environ.get('KAGGLE_USERNAME') or 'your-name'}/{title.lower().replace(' ', '-')}"
    write_text(path, json.dumps({"title": title, "id": name, "licenses": [{"name": "other"}]}, indent=2) + "\n")
    return name


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is whole or not there."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_installer(folder: Path) -> None:
    """Put the script that a notebook's first cell starts into a data set."""
    shutil.copyfile(Path(__file__).with_name("install.py"), folder / INSTALLER)


def refuse_foreign(folder: Path, known: Iterable[str]) -> None:
    """Refuse a folder that holds something else: it would be uploaded too.

    Raises:
        ConfigError: naming the first.
    """
    foreign = sorted({path.name for path in folder.iterdir()} - {*known, DATASET_METADATA, INSTALLER}) if folder.is_dir() else []
    if foreign:
        raise ConfigError(f"{folder}: {foreign[0]} is there and was not made by this; give an --out of its own ({len(foreign)} such)")


def check_total(folder: Path, files: Iterable[tuple[str, int]]) -> int:
    """Bytes of a data set's files.

    Raises:
        DataError: where they are over what an account has room for.
    """
    total = sum(size for _, size in files)
    if total > TOTAL_LIMIT:
        raise DataError(f"{folder}: {format_size(total)} are over Kaggle's {format_size(TOTAL_LIMIT)}; leave something out")
    return total


def as_rows(value: dict[str, Any], rows: str) -> str:
    """JSON with one line for each entry of the list `rows`."""
    head = "".join(f" {json.dumps(key)}: {json.dumps(entry)},\n" for key, entry in value.items() if key != rows)
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in value[rows])
    return "{\n" + head + f" {json.dumps(rows)}: [\n{lines}\n ]\n}}\n"
