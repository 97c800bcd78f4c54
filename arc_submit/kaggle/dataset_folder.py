"""A folder that becomes a Kaggle data set: its metadata and manifest, stored file names that survive an upload, and no foreign files.

Kaggle strips `+` from file names, so a wheel named torch-2.13.0+cpu is stored under another name; a file over the part size is stored in
parts. The manifest maps stored names to wheels. Does not know the purpose of the files.
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

from arc_submit.arc.files import read_json
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.files import format_json, format_size

DATASET_METADATA = "dataset-metadata.json"
INSTALLER = "arc_submit_install.py"
TOTAL_LIMIT = 100_000_000_000  # bytes of private data sets that an account may hold, at least
PART_SIZE = 2_000_000_000  # bytes of one stored file; no limit is documented, but an interrupted upload starts again with the file


@dataclass(frozen=True)
class StoredFile:
    """A wheel of a data set: its own name, its stored names in order, bytes and sha256 of the whole."""

    file: str
    stored: tuple[str, ...]
    size: int
    sha256: str


def stored_names(file: str, size: int, part_size: int = PART_SIZE) -> tuple[str, ...]:
    """The names under which a file is stored: without a plus, and in parts if it is large."""
    safe = file.replace("+", "_plus_")
    parts = -(-size // part_size)
    return (safe,) if parts <= 1 else tuple(f"{safe}.part{number:03d}" for number in range(parts))


def split_file(source: Path, folder: Path, names: tuple[str, ...], part_size: int = PART_SIZE) -> None:
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
    """Write dataset-metadata.json unless it exists; returns the data set's id.

    Args:
        folder: of the data set.
        title: of the data set.
        owner: Kaggle user name; None takes KAGGLE_USERNAME, else "your-name", which an upload refuses.

    Raises:
        ConfigError: if Kaggle would refuse the title, or make another slug of it.
    """
    path = folder / DATASET_METADATA
    if path.is_file():
        return str(read_json(path).get("id"))
    if not 6 <= len(title) <= 50 or not re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", title):
        raise ConfigError(f"--title {title!r}: write 6 to 50 letters and digits with single spaces, for a predictable slug")
    name = f"{owner or os.environ.get('KAGGLE_USERNAME') or 'your-name'}/{title.lower().replace(' ', '-')}"
    _write_whole(path, json.dumps({"title": title, "id": name, "licenses": [{"name": "other"}]}, indent=2) + "\n")
    return name


def write_manifest(path: Path, manifest: dict[str, Any], table: str) -> None:
    """Finish a data set's folder: write the install script that notebooks run, then the manifest, with a line for each entry of `table`."""
    shutil.copyfile(Path(__file__).with_name("install.py"), path.with_name(INSTALLER))
    _write_whole(path, format_json(manifest, table))


def read_manifest(path: Path, problem: str) -> dict[str, Any]:
    """The manifest of a finished data set's folder; DataError with `problem` if there is none."""
    try:
        value: dict[str, Any] = read_json(path)
    except DataError:
        raise DataError(f"{path.parent}: {problem}") from None
    return value


def _write_whole(path: Path, text: str) -> None:
    """Write a file atomically: it is complete or does not exist."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def refuse_foreign_files(folder: Path, known: Iterable[str]) -> None:
    """Raise ConfigError if a folder holds other files than these, which would be uploaded too."""
    foreign = sorted({path.name for path in folder.iterdir()} - {*known, DATASET_METADATA, INSTALLER}) if folder.is_dir() else []
    if foreign:
        raise ConfigError(f"{folder}: {foreign[0]} was not made by this command ({len(foreign)} such); give --out a folder of its own")


def check_total_size(folder: Path, size: int) -> None:
    """Raise DataError if a data set's bytes are over the limit of an account."""
    if size > TOTAL_LIMIT:
        raise DataError(f"{folder}: {format_size(size)} are over Kaggle's {format_size(TOTAL_LIMIT)}; leave something out")
