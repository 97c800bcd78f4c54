"""What may be shipped in a data set: no credentials, nothing hidden, no pickles, nothing from outside the folder, weights that are whole.

Each refusal is one line with its remedy. Knows nothing about Kaggle.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from arc_submit.kaggle.sizes import in_words

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
_LFS = b"version https://git-lfs"
_LARGEST_TEXT = 50_000_000  # bytes of a file that is read for credentials; weights are larger
_NO_TEXT = (".safetensors", ".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".7z", ".xz")  # weights, and what is compressed


def credentials_in(path: Path) -> list[str]:
    """What about a file looks like credentials, by its name or its text; one line for each, with its remedy.

    Whatever ships files asks this: a bundle, an upload of any folder, and, for cells of a notebook, `credential_in`.
    """
    found = ["has the name of a file of credentials; move it away"] if _CREDENTIAL_NAMES.fullmatch(path.name) else []
    if path.suffix.lower() not in _NO_TEXT and path.is_file() and path.stat().st_size <= _LARGEST_TEXT:
        content = path.read_bytes()
        for what, place in _search(content):
            line = content.count(b"\n", 0, place) + 1
            found.append(f"line {line}: looks like {what}; take it out, and revoke it if it was ever shared")
    return found


def credential_in(text: str) -> str | None:
    """What in a text looks like a credential, such as "a Hugging Face token"."""
    return next((what for what, _ in _search(text.encode("utf-8", "surrogatepass"))), None)


def _search(content: bytes) -> Iterator[tuple[str, int]]:
    for what, pattern in _CREDENTIALS.items():
        found = pattern.search(content)
        if found:
            yield what, found.start()


def refusals(folder: Path) -> list[str]:
    """Why the files of a folder may not be shipped, one line for each; empty where they may."""
    return [line for path in sorted(folder.rglob("*")) for line in _refuse(folder, path)]


def files_of(folder: Path) -> list[Path]:
    """The files of a folder, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _refuse(folder: Path, path: Path) -> Iterator[str]:
    if path.name.startswith("."):
        yield f"{path}: is hidden, and would be uploaded all the same; delete it or move it away"
        return
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        yield f"{path}: is a link to {path.resolve()}, outside the folder; copy the file there (cp -L)"
        return
    if path.is_dir():
        return
    if not path.is_file():
        yield f"{path}: is no file; delete it"
        return
    yield from (f"{path}: {line}" for line in credentials_in(path))
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        yield f"{path}: is or may be a pickle, which runs code when it is loaded; ship .safetensors alone"
    elif path.suffix == ".safetensors":
        problem = safetensors_problem(path)
        if problem:
            yield f"{path}: {problem}"
    else:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                yield f"{path}: is a Git LFS pointer and not the file; run git lfs pull where it came from"


def safetensors_problem(path: Path) -> str | None:
    """What is wrong with a safetensors file, by its header and its size alone: weights that are cut short are found before a run."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(_LFS):
            return "is a Git LFS pointer and not the weights; run git lfs pull where it came from"
        length = int.from_bytes(start[:8], "little")
        if size < 8 or not 2 <= length <= min(size - 8, 100_000_000):
            return "is no safetensors file; copy it again"
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "has no safetensors header; copy it again"
    if 8 + length + end != size:
        return f"has {in_words(size)} where its header says {in_words(8 + length + end)}; copy it again"
    return None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if start == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".pkl") for name in archive.namelist())
        except zipfile.BadZipFile:
            return False
    return False
