"""Sizes of files: in words, and as sha256. Knows nothing about what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def in_words(size: float) -> str:
    """Bytes as a person reads them, in powers of 1000: "1.23 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} B"


def sha256_of(*paths: Path) -> str:
    """sha256 of files, one behind the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
