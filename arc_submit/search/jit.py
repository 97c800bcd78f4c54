"""Compilation: the one decorator through which this room becomes native code, with a cache that cannot go stale.

numba's own cache looks only at the file of the function itself, so that a changed callee in another file would keep running in its old
form. The cache folder is therefore named after a digest of every source file of the room. Knows nothing about tasks.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., Any])


def cache_folder() -> Path:
    """A writable folder for compiled code: below NUMBA_CACHE_DIR, else the user's cache folder, else the system's temporary one."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    name = f"arc_submit-{digest.hexdigest()[:16]}"
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for base in ([Path(chosen)] if chosen else []) + [user_cache, Path(tempfile.gettempdir())]:
        folder = base / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="arc_submit-"))


_FOLDER = str(cache_folder())


def jit(function: Function) -> Function:
    """Compile a function at its first call, or load it from the cache."""
    before = config.CACHE_DIR
    config.CACHE_DIR = _FOLDER
    try:
        compiled: Function = numba.njit(cache=True, nogil=True)(function)
        return compiled
    finally:
        config.CACHE_DIR = before
