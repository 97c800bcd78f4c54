"""Files: their names in a folder, their sizes for people and their sha256. Does not know their content."""

from __future__ import annotations

import hashlib
from pathlib import Path


def list_files(folder: Path) -> list[Path]:
    """The files below a folder, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def format_size(size: float) -> str:
    """Bytes in powers of 1000: "1.23 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} B"


def sha256_of(*paths: Path) -> str:
    """sha256 of the concatenated files, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
