"""Compilation: the one decorator through which this room becomes native code, with a cache that cannot go stale.

numba's own cache looks only at the file of the function itself, so that a changed callee in another file would keep running in its old
form. The cache folder is therefore named after a digest of the source file and of all files of this room that it imports. Knows
nothing about tasks.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
from numba.core import config, types

Function = TypeVar("Function", bound=Callable[..., Any])

_ROOM = Path(__file__).parent
_IMPORT = re.compile(r"^from arc_submit\.search\.([a-z_.]+) import", re.MULTILINE)


def jit(function: Function) -> Function:
    """Compile a function at its first call, or load it from the cache."""
    return _compiled(function, "never")


def jit_into_callers(function: Function) -> Function:
    """`jit` for a function that only chooses among others: its body becomes part of each compiled function that calls it.

    Compiled code holds a copy of all that it calls, so that every layer of functions that choose would have all of it compiled once more.
    """
    return _compiled(function, "always")


def _compiled(function: Function, inline: str) -> Function:
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(Path(function.__code__.co_filename)))
    try:
        dispatcher = numba.njit(cache=True, nogil=True, no_cfunc_wrapper=True, inline=inline)(function)
    finally:
        config.CACHE_DIR = before
    template = dispatcher.get_call_template

    def widened(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
        """One form of a function for all integers and constants it is called with from compiled code, instead of one for each."""
        return template([_wide(kind) for kind in args], {name: _wide(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = widened
    compiled: Function = dispatcher
    return compiled


def _wide(kind: Any) -> Any:
    plain = types.unliteral(kind)
    return types.int64 if isinstance(plain, types.Integer) and plain.signed else plain


@cache
def cache_base() -> Path:
    """A writable folder for all compiled code: below NUMBA_CACHE_DIR, else the user's cache, else the system's temporary folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for above in ([Path(chosen)] if chosen else []) + [user_cache, Path(tempfile.gettempdir())]:
        folder = above / "arc_submit"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="arc_submit-"))


def compiled_mark() -> Path:
    """The file that says that all of this room has been compiled, as it lies here, by this numba for this processor."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__} {llvmlite.binding.get_host_cpu_name()}".encode())
    for path in sorted(_ROOM.rglob("*.py")):
        # numba looks for the code of a file by its path, and takes it for another file where it is younger.
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return cache_base() / f"compiled-{digest.hexdigest()[:16]}"


@cache
def _cache_folder(source: Path) -> Path:
    """Where the code of a file is kept."""
    digest = hashlib.sha256()
    for path in sorted(_closure(source)):
        digest.update(path.name.encode() + path.read_bytes())
    folder = cache_base() / f"{source.stem}-{digest.hexdigest()[:16]}"
    folder.mkdir(exist_ok=True)
    return folder


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
