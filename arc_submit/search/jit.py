"""Compilation: the one decorator through which this room becomes native code, with a cache that cannot go stale.

numba's own cache looks only at the file of the function itself, so that a changed callee in another file would keep running in its old
form. The cache folder is therefore named after a digest of the source file and of all files of this room that it imports. Knows
nothing about tasks.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., Any])

_ROOM = Path(__file__).parent
_IMPORT = re.compile(r"^from arc_submit\.search\.([a-z_.]+) import", re.MULTILINE)


def jit(function: Function) -> Function:
    """Compile a function at its first call, or load it from the cache."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(Path(function.__code__.co_filename)))
    try:
        compiled: Function = numba.njit(cache=True, nogil=True)(function)
        return compiled
    finally:
        config.CACHE_DIR = before


@cache
def _cache_folder(source: Path) -> Path:
    """A writable folder for the code of a file: below NUMBA_CACHE_DIR, else the user's cache, else the system's temporary folder."""
    digest = hashlib.sha256()
    for path in sorted(_closure(source)):
        digest.update(path.name.encode() + path.read_bytes())
    name = f"arc_submit/{source.stem}-{digest.hexdigest()[:16]}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for base in ([Path(chosen)] if chosen else []) + [user_cache, Path(tempfile.gettempdir())]:
        folder = base / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="arc_submit-"))


def _closure(source: Path) -> set[Path]:
    """A file and every file of this room that it imports, directly or not."""
    found: set[Path] = set()
    todo = [source]
    while todo:
        path = todo.pop()
        if path not in found and path.is_file():
            found.add(path)
            todo += [_ROOM / f"{name.replace('.', '/')}.py" for name in _IMPORT.findall(path.read_text(encoding="utf-8"))]
    return found
