"""Files: their names in a folder, sizes for people, sha256, and JSON that diffs well. Does not know their content."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from arc_submit.errors import DataError


def list_files(folder: Path) -> list[Path]:
    """The files below a folder, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def format_size(size: float) -> str:
    """Bytes in powers of 1000: "1.23 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} B"


def require_space(folder: Path, size: int) -> None:
    """Raise DataError if the disk of an existing folder has no room for `size` more bytes."""
    free = shutil.disk_usage(folder).free
    if size > 0.95 * free:
        raise DataError(f"{folder}: {format_size(size)} are needed and {format_size(free)} are free; choose another --out")


def sha256_of(*paths: Path) -> str:
    """sha256 of the concatenated files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def format_json(value: dict[str, Any], *tables: str) -> str:
    """JSON in which each field has a line, and so has each entry of the lists named by `tables`."""
    lines = []
    for name, field in value.items():
        rows = ",\n".join(f"  {json.dumps(entry)}" for entry in field) if name in tables else ""
        lines.append(f" {json.dumps(name)}: " + (f"[\n{rows}\n ]" if name in tables else json.dumps(field)))
    return "{\n" + ",\n".join(lines) + "\n}\n"
