"""Finds files that must not be shipped in a data set: credentials, hidden files, pickles, links out of the folder, truncated weights.

Each problem is one line with its remedy. Does not know Kaggle.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from arc_submit.kaggle.files import format_size

_CREDENTIAL_NAMES = re.compile(
    r"kaggle\.json|access_token(\.txt)?|credentials(\.\w+)?|id_(rsa|dsa|ecdsa|ed25519)|[^.]*\.(pem|key|p12|pfx)|(stored_)?tokens?|token\.txt|.*\.env",
    re.IGNORECASE,
)
_CREDENTIALS = {
    "a Kaggle key": re.compile(rb"(?i:key)\W{1,8}[0-9a-f]{32}(?![0-9a-f])|\bKGAT_[0-9a-f]{16,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "a GitHub token": re.compile(rb"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})"),
    "an AWS key": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    "a Google key": re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b"),
    "an API key": re.compile(rb"\bsk-[A-Za-z0-9_-]{32,}"),
    "a Slack token": re.compile(rb"\bxox[abp]-[0-9A-Za-z-]{20,}"),
}
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_LFS_POINTER = b"version https://git-lfs"
_LARGEST_SCANNED = 50_000_000  # bytes; larger files are weights
_NOT_SCANNED = (".safetensors", ".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".xz")  # weights and compressed files


def find_credentials(path: Path) -> list[str]:
    """Problems where a file's name or content looks like credentials. Every command that ships files calls this."""
    problems = ["has the name of a credentials file; move it away"] if _CREDENTIAL_NAMES.fullmatch(path.name) else []
    if path.suffix.lower() not in _NOT_SCANNED and path.is_file() and path.stat().st_size <= _LARGEST_SCANNED:
        content = path.read_bytes()
        for kind, start in _search(content):
            line = content.count(b"\n", 0, start) + 1
            problems.append(f"line {line}: looks like {kind}; remove it, and revoke it if it was ever shared")
    return problems


def credential_kind(text: str) -> str | None:
    """The kind of the first credential in a text, such as "a Hugging Face token"; None if there is none."""
    return next((kind for kind, _ in _search(text.encode("utf-8", "surrogatepass"))), None)


def _search(content: bytes) -> Iterator[tuple[str, int]]:
    for kind, pattern in _CREDENTIALS.items():
        if match := pattern.search(content):
            yield kind, match.start()


def shipping_problems(folder: Path) -> list[str]:
    """All reasons why a folder must not be shipped, one line each."""
    return [line for path in sorted(folder.rglob("*")) for line in _file_problems(folder, path)]


def _file_problems(folder: Path, path: Path) -> Iterator[str]:
    if path.name.startswith("."):
        yield f"{path}: is hidden and would be uploaded too; delete it or move it away"
        return
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        yield f"{path}: is a link to {path.resolve()}, outside the folder; copy the file there (cp -L)"
        return
    if path.is_dir():
        return
    if not path.is_file():
        yield f"{path}: is not a regular file; delete it"
        return
    yield from (f"{path}: {line}" for line in find_credentials(path))
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        yield f"{path}: may be a pickle, which runs code when it is loaded; ship only .safetensors"
    elif path.suffix == ".safetensors":
        if problem := safetensors_problem(path):
            yield f"{path}: {problem}"
    else:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                yield f"{path}: is a Git LFS pointer, not the file; run git lfs pull in its repository"


def safetensors_problem(path: Path) -> str | None:
    """The fault of a safetensors file by its header and size alone, which finds truncated weights without loading them; None if sound."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(_LFS_POINTER):
            return "is a Git LFS pointer, not the weights; run git lfs pull in their repository"
        # The format: 8 bytes with the header's length, the header (JSON), the tensors' bytes.
        length = int.from_bytes(start[:8], "little")
        if size < 8 or not 2 <= length <= min(size - 8, 100_000_000):
            return "is not a safetensors file; copy it again"
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "has no safetensors header; copy it again"
    if 8 + length + end != size:
        return f"has {format_size(size)}, but its header describes {format_size(8 + length + end)}; copy it again"
    return None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":  # torch.save writes a zip archive with a pickle in it
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    return re.match(rb"\x80[\x02-\x05]", start) is not None  # the protocol's opcode
