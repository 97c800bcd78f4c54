"""Text and JSON files: one way to read, write, append to and name them.

A file may begin with a byte order mark, which editors on Windows write, and what gzip has packed is decompressed, whatever the name.
A file is replaced atomically, and lines are appended whole. Does not know what a file holds.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from arc_submit.errors import DataError

# UTF-32 is first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"
# The beginnings of packed files that are not read.
_PACKED = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "rar"),
    (b"PK\x03\x04", "zip"),
    (b"PAR1", "parquet"),
    (_GZIP, "gzip twice"),
)
# What a download leaves in place of a JSON file: how its text begins, and its remedy.
_NO_DATA = (
    ("version https://git-lfs", "a pointer of Git LFS and not the file; run git lfs pull"),
    ("<", "a web page or XML and not JSON; download the file itself"),
)
AnyPath = Path | zipfile.Path  # a file, or a member of an archive
_LONGEST_NAME = 100  # characters; a file system takes 255 bytes, and endings are added


def open_text(path: AnyPath, errors: str = "strict") -> IO[str]:
    """Open a file, or what gzip has packed in it, as text: UTF-8, or what its byte order mark says, or UTF-16 without a mark.

    Args:
        errors: "replace" reads bytes that are no text as U+FFFD; "strict" raises UnicodeDecodeError, a ValueError.

    Raises:
        OSError: where the file cannot be read; reading a broken packed file raises EOFError or zlib.error too.
        DataError: where it is packed by another program.
    """
    binary: Any = path.open("rb")
    try:
        if binary.read(2) == _GZIP:
            binary.seek(0)
            binary = gzip.open(binary)  # noqa: SIM115 - the caller closes it
        binary.seek(0)
        start = binary.read(6)
        binary.seek(0)
        if packed := next((kind for mark, kind in _PACKED if start.startswith(mark)), None):
            raise DataError(f"{path}: packed with {packed} and not text; unpack it, or pack it once with gzip")
    except BaseException:
        binary.close()
        raise
    encoding = next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None) or _unmarked_encoding(start)
    return io.TextIOWrapper(binary, encoding=encoding, errors=errors)


def _unmarked_encoding(start: bytes) -> str:
    """The encoding of a text without a mark that begins with an ASCII character, as JSON does."""
    if re.match(rb"[^\0]\0[^\0]", start):
        return "utf-16-le"
    return "utf-16-be" if re.match(rb"\0[^\0]\0[^\0]", start) else "utf-8"


def has_byte_order_mark(path: Path) -> bool:
    """Whether an existing file begins with a byte order mark, which this project reads and others may not."""
    with path.open("rb") as file:
        start = file.read(4)
    return any(start.startswith(mark) for mark, _ in _MARKS)


def read_text(path: AnyPath, errors: str = "strict") -> str:
    """The text of a file, see `open_text`.

    Raises:
        DataError: where the file cannot be read, or is not text.
    """
    try:
        with open_text(path, errors) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken ({error}); fetch it again, or leave it out") from None
    except ValueError as error:
        raise DataError(f"{path}: not text ({error})") from None


def read_json(path: AnyPath) -> Any:
    """The JSON value of a file.

    Raises:
        DataError: where the file cannot be read or is not JSON.
    """
    return _parse_json(path, None)


def read_json_with_repeats(path: AnyPath) -> tuple[Any, set[str]]:
    """The JSON value of a file, and where it is an object those of its keys that are repeated, or whose value repeats a key.

    Raises:
        DataError: as `read_json` does.
    """
    faults: list[tuple[dict[str, Any], set[str]]] = []

    def build(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) < len(items):
            faults.append((value, {key for key, count in Counter(key for key, _ in items).items() if count > 1}))
        return value

    value = _parse_json(path, build)
    if not faults or not isinstance(value, dict):
        return value, set()
    outer = {key for fault, keys in faults if fault is value for key in keys}
    inner = {id(fault) for fault, _ in faults if fault is not value}
    return value, outer | {key for key, entry in value.items() if _holds(entry, inner)}


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of a file; a line that a kill cut short is left out, and so is one that holds anything else.

    Raises:
        DataError: where the file cannot be read.
    """
    for line in read_text(path, "replace").split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


def _parse_json(path: AnyPath, pairs_hook: Any) -> Any:
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: an empty file; fetch it again, or leave it out")
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except (ValueError, RecursionError) as error:
        if fault := next((fault for start, fault in _NO_DATA if text.lstrip().startswith(start)), None):
            raise DataError(f"{path}: {fault}") from None
        remedy = "correct that place, or fetch the file again"
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            remedy = "it holds more than one value; write them as one"
        raise DataError(f"{path}: not JSON ({error}); {remedy}") from None


def _holds(value: Any, wanted: set[int]) -> bool:
    """Whether an object with one of the wanted id()s is the value or is inside it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in wanted:
            return True
        if isinstance(item, dict | list):
            waiting += [part for part in (item.values() if isinstance(item, dict) else item) if isinstance(part, dict | list)]
    return False


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, see `write_text`."""
    write_text(path, json.dumps(value, separators=(",", ":")))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, compressed where its name ends in .gz: at every instant the path holds the old file or the new one.

    Raises:
        DataError: where the file cannot be written (disk full, read-only); the old file remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            # Without a time the same text makes the same file.
            file.write(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); free some disk space or choose another folder") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_lines(path: Path, text: str) -> None:
    """Append whole lines in a single write and flush them to the disk.

    Where the last line of the file was cut short by a kill, a newline is written first, so that only that line is lost.

    Raises:
        DataError: where the lines cannot be written (disk full, read-only).
    """
    data = text.encode()
    if not data:
        return
    descriptor = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = os.write(descriptor, data)
        if written != len(data):
            raise DataError(f"{path}: only {written} of {len(data)} bytes written: free some disk space")
        os.fsync(descriptor)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); free some disk space or choose another folder") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def is_file_name(text: str) -> bool:
    """Whether a text can name a file as it is: 1 to 100 ASCII letters, digits, "_", "-" and ".", the first of them not "."."""
    return re.fullmatch(rf"(?!\.)[A-Za-z0-9_.-]{{1,{_LONGEST_NAME}}}", text) is not None


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON allows halves of characters (lone surrogates), which cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def file_name(text: str) -> str:
    """A file name, without an ending, for any text such as a task id: the text itself where it can be one.

    Any other text gets the part of it that is readable, "@" and a digest. "@" is in no text that is its own name, so that two texts never
    share a name.
    """
    if is_file_name(text):
        return text
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:40].strip("-").lower()
    return f"{readable}@{hashlib.sha256(text.encode()).hexdigest()[:20]}"
