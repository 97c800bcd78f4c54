"""Compilation: the decorators that compile functions of this package with numba, with a cache that cannot become stale.

numba's own cache checks only the file of the function itself, so a caller of a changed function in another file would keep the old code.
The cache folder's name therefore contains a digest of the source file and of all files of this package that it imports. This module does
not know tasks.
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
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

Function = TypeVar("Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parent
_IMPORT = re.compile(r"^from arc_submit\.search\.([a-z_.]+) import", re.MULTILINE)


def jit(function: Function) -> Function:
    """Compile a function at its first call, or load it from the cache."""
    return _compile(function, "never")


def jit_into_callers(function: Function) -> Function:
    """`jit` for a function that only dispatches to others: its body is inlined into each compiled caller.

    Compiled code contains a copy of everything it calls, so each layer of dispatching functions would compile all of it once more.
    """
    return _compile(function, "always")


def _without_owner(context: Any, value: Any) -> Any:
    """How numba types and compiles `borrowed`."""

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _strip(target, builder, signature.return_type, args[0])

    return value(value), generate


def _strip(target: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An array, or each array of a tuple, without its owner: what has none is not counted."""
    if isinstance(kind, types.BaseTuple):
        for k, element in enumerate(kind):
            value = builder.insert_value(value, _strip(target, builder, element, builder.extract_value(value, k)), k)
        return value
    out = make_array(kind)(target, builder, value)
    out.meminfo = out.meminfo.type(None)
    out.parent = out.parent.type(None)
    return out._getvalue()


# In compiled code: an array, or a tuple of arrays, of the same memory whose references are not counted. Compiled functions count the
# references to their arguments with atomic additions, which take longer than a small operation on a grid. The caller must hold the arrays
# itself for as long as the result is used, as the caller of a function holds its arguments.
borrowed: Callable[[Any], Any] = intrinsic(_without_owner)


def _compile(function: Function, inline: str) -> Function:
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(Path(function.__code__.co_filename)))
    try:
        dispatcher = numba.njit(cache=True, nogil=True, no_cfunc_wrapper=True, inline=inline)(function)
    finally:
        config.CACHE_DIR = before
    template = dispatcher.get_call_template

    def widened(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
        """One specialisation for all integer types and constants in calls from compiled code, instead of one for each."""
        return template([_widen(kind) for kind in args], {name: _widen(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = widened
    compiled: Function = dispatcher
    return compiled


def _widen(kind: Any) -> Any:
    plain = types.unliteral(kind)
    return types.int64 if isinstance(plain, types.Integer) and plain.signed else plain


@cache
def cache_base() -> Path:
    """A writable folder for all compiled code: below NUMBA_CACHE_DIR, else the user's cache, else the system's temporary folder."""
    numba_cache = os.environ.get("NUMBA_CACHE_DIR")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for parent in ([Path(numba_cache)] if numba_cache else []) + [user_cache, Path(tempfile.gettempdir())]:
        folder = parent / "arc_submit"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="arc_submit-"))


def compiled_marker() -> Path:
    """The file that exists once all of this package, in its present version, is compiled by this numba for this processor."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__} {llvmlite.binding.get_host_cpu_name()}".encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        # numba finds the compiled code of a file by its path and discards it when the file has another modification time.
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode() + path.read_bytes())
    return cache_base() / f"compiled-{digest.hexdigest()[:16]}"


@cache
def _cache_folder(source: Path) -> Path:
    """The cache folder for the compiled code of a file."""
    digest = hashlib.sha256()
    for path in sorted(_with_imports(source)):
        digest.update(path.name.encode() + path.read_bytes())
    folder = cache_base() / f"{source.stem}-{digest.hexdigest()[:16]}"
    folder.mkdir(exist_ok=True)
    return folder


def _with_imports(source: Path) -> set[Path]:
    """A file and every file of this package that it imports, directly or indirectly."""
    found: set[Path] = set()
    todo = [source]
    while todo:
        path = todo.pop()
        if path not in found and path.is_file():
            found.add(path)
            todo += [_PACKAGE / f"{name.replace('.', '/')}.py" for name in _IMPORT.findall(path.read_text(encoding="utf-8"))]
    return found
