"""Where vllm, Triton, inductor and FlashInfer keep what they compile: in the run directory, filled from an earlier session's archive.

A restarted worker, a resumed run and a later session then compile nothing again. The archive is one file, so that a Kaggle output holds it
and a data set attaches it. What was compiled for another card or another version is not found by its key and does no harm. Does not know
engines.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from arc_submit.errors import ConfigError, DataError

ARCHIVE = "compile_cache.tar"
# The variable of each program, and its folder in the cache.
_VARIABLES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}


def use_compile_cache(folder: Path, archive: Path | None) -> str:
    """Point this process's compilers to a folder; returns a line for the log. To be called before vllm is imported.

    Args:
        folder: of the run. Where it does not exist yet it is made from the archive.
        archive: as `pack_compile_cache` writes it; None starts empty.

    Raises:
        DataError: where the archive cannot be unpacked.
    """
    source = "of this run"
    if not folder.exists():
        source = f"from {archive}" if archive is not None else "empty"
        _unpack(archive, folder)
    os.environ |= {name: str(folder / part) for name, part in _VARIABLES.items()}
    return f"compile cache {folder}, {source}"


def check_archive(archive: Path) -> None:
    """Refuse what is no archive, before any worker starts.

    Raises:
        ConfigError: naming the file.
    """
    if not archive.is_file() or not tarfile.is_tarfile(archive):
        raise ConfigError(f"--compile-cache {archive}: no tar file; give the {ARCHIVE} that an earlier session has left, or leave it out")


def pack_compile_cache(folder: Path, archive: Path) -> bool:
    """Write the archive of a run's cache; returns whether there was anything to write."""
    if not folder.is_dir() or not any(path.is_file() for path in folder.rglob("*")):
        return False
    partial = archive.with_name(f".{archive.name}.partial")
    with tarfile.open(partial, "w") as tar:
        for part in sorted(folder.iterdir()):
            tar.add(part, part.name)
    partial.replace(archive)
    return True


def _unpack(archive: Path | None, folder: Path) -> None:
    """Make the folder whole or not at all: several workers may do so at once, and the first one's stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".compile_cache-", dir=folder.parent))
    try:
        if archive is not None:
            try:
                with tarfile.open(archive) as tar:
                    tar.extractall(partial, filter="data")
            except (OSError, tarfile.TarError) as error:
                raise DataError(f"{archive}: cannot be unpacked ({error}); attach it again, or leave --compile-cache out") from None
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
