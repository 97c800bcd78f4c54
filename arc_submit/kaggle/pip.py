"""Runs pip for another machine: resolves requirements, downloads the wheels of a lock, and verifies that a set installs offline.

The user's pip configuration determines where packages come from; no index is named here. Does not know Kaggle.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.dependencies import Distribution
from arc_submit.kaggle.files import require_space, sha256_of
from arc_submit.kaggle.install import last_error, run_pip
from arc_submit.kaggle.targets import LockedWheel, Target

# pip evaluates markers for the Python that it runs on; this makes it see the target's version as its own.
_AS_TARGET = (
    "import platform, runpy, sys\n"
    "version = sys.argv.pop(1)\n"
    "platform.python_version = lambda: version\n"
    "platform.python_version_tuple = lambda: tuple(version.split('.'))\n"
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)\n"
)


_BATCH_BYTES = 100_000_000  # a larger file is a batch of its own
_BATCH_FILES = 50


@dataclass(frozen=True)
class ResolvedPackage:
    """A package that pip would install, with the wheel's file name and the sha256 of the index."""

    distribution: Distribution
    file: str
    sha256: str


def resolve(target: Target, requirements: Iterable[str], folders: Sequence[Path] = ()) -> list[ResolvedPackage]:
    """The packages that pip would install on a target where nothing is installed yet.

    Args:
        target: the image to resolve for.
        requirements: what to install.
        folders: of wheels that alone are considered, without an index or the user's pip configuration; none considers the index.

    Raises:
        ConfigError: on another system than Linux on x86-64.
        DataError: if pip finds no solution.
    """
    if not is_linux_x86_64():
        raise ConfigError("a lock is made on Linux on x86-64: pip evaluates markers such as sys_platform for the machine it runs on")
    # pip requires --target with another platform; a dry run writes nothing there.
    options = ["--dry-run", "--ignore-installed", "--no-cache-dir", "--quiet", "--report", "-", "--target", "nowhere"]
    if folders:
        options += ["--no-index", *(part for folder in folders for part in ("--find-links", str(folder)))]
    output = _run(target, "install", [*options, *requirements], offline=bool(folders))
    resolved = []
    for entry in json.loads(output[output.index("{") :])["install"]:
        metadata, source = entry["metadata"], entry["download_info"]
        distribution = Distribution(metadata["name"], metadata["version"], tuple(metadata.get("requires_dist", ())))
        file = source["url"].split("#")[0].rsplit("/", 1)[1].replace("%2B", "+").replace("%2b", "+")
        resolved.append(ResolvedPackage(distribution, file, source["archive_info"].get("hashes", {}).get("sha256", "")))
    return sorted(resolved, key=lambda package: package.distribution.name.lower())


def is_linux_x86_64() -> bool:
    """Whether this machine has the system of every target."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"


def download_wheels(target: Target, wheels: Sequence[LockedWheel], folder: Path) -> dict[str, Path]:
    """Download every wheel that a folder does not hold yet with the lock's sha256; returns the paths by file name.

    An interrupted download loses one batch at most.

    Raises:
        DataError: if the disk has no room, or a wheel is not available as the lock names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for wheel in wheels:
        path = folder / wheel.file
        if path.is_file() and sha256_of(path) != wheel.sha256:
            print(f"{path}: differs from the lock; it is downloaded again")
            path.unlink()
        if not path.is_file():
            missing.append(wheel)
    require_space(folder, sum(wheel.size for wheel in missing))
    partial = folder / ".partial"
    options = ["--no-deps", "--require-hashes", "--no-cache-dir", "--progress-bar", "off", "--dest", str(partial)]
    try:
        for batch in _batches(missing):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            requirements = partial / "requirements.txt"
            lines = (f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in batch)
            requirements.write_text("".join(lines), encoding="utf-8")
            _run(target, "download", [*options, "-r", str(requirements)])
            for wheel in batch:
                if not (partial / wheel.file).is_file():
                    raise DataError(f"{wheel.file}: pip downloaded another file of {wheel.name} {wheel.version}; make the lock again")
                (partial / wheel.file).replace(folder / wheel.file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {wheel.file: folder / wheel.file for wheel in wheels}


def _batches(wheels: Sequence[LockedWheel]) -> Iterator[list[LockedWheel]]:
    batch: list[LockedWheel] = []
    for wheel in wheels:
        if batch and (sum(other.size for other in batch) + wheel.size > _BATCH_BYTES or len(batch) >= _BATCH_FILES):
            yield batch
            batch = []
        batch.append(wheel)
    if batch:
        yield batch


def _run(target: Target, command: str, arguments: Sequence[str], offline: bool = False) -> str:
    """Standard output of a pip command that acts for a target; DataError holds pip's last error."""
    platforms = [part for tag in target.platforms() for part in ("--platform", tag)]
    options = ["--only-binary=:all:", "--python-version", target.python_minor, "--implementation", "cp", *platforms]
    process = run_pip([sys.executable, "-c", _AS_TARGET, target.python, command, *options, *arguments], offline)
    if process.returncode:
        raise DataError(f"target {target.name}: pip {command}: {last_error(process.stderr)}")
    return process.stdout
