"""`arc-submit kaggle wheels`: a data set of exactly the wheels that a target's lock names, from any machine, proven to install offline.

What the image has is left out. What is in the folder already and whole stays; the rest is fetched. Then pip resolves the requirements from
the folder alone, for the target's Python and platform, with empty stand-ins for the image's packages: it must want every wheel of the
lock, no other, and from the image what the lock leaves out. Knows nothing about notebooks.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arc_submit.errors import DataError
from arc_submit.kaggle.dataset_folder import (
    PART_SIZE,
    StoredFile,
    as_rows,
    check_total,
    read_manifest,
    refuse_foreign,
    split_into,
    stored_names,
    write_installer,
    write_metadata,
    write_text,
)
from arc_submit.kaggle.dependencies import canonical, close, read_wheel
from arc_submit.kaggle.download import fetch
from arc_submit.kaggle.files import format_size, sha256_of
from arc_submit.kaggle.install import WHEELS
from arc_submit.kaggle.pip import on_linux, resolve_offline
from arc_submit.kaggle.targets import LeftOut, Lock, Target, read_lock, read_target


def gather(target: Target, lock: Lock, folder: Path, part_size: int = PART_SIZE) -> tuple[list[StoredFile], int]:
    """Have the lock's wheels in a data set's folder; returns them as they are stored and how many bytes were fetched.

    Raises:
        ConfigError: where the folder holds something else.
        DataError: where a wheel is not to be had.
    """
    entries = [StoredFile(wheel.file, stored_names(wheel.file, wheel.size, part_size), wheel.size, wheel.sha256) for wheel in lock.wheels]
    check_total(folder, [(entry.file, entry.size) for entry in entries])
    refuse_foreign(folder, [WHEELS, ".fetched", *(name for entry in entries for name in entry.stored)])
    folder.mkdir(parents=True, exist_ok=True)
    # The manifest is written last: a folder without one is not finished.
    (folder / WHEELS).unlink(missing_ok=True)
    missing = []
    for wheel, entry in zip(lock.wheels, entries, strict=True):
        paths = [folder / name for name in entry.stored]
        there = [path for path in paths if path.exists()]
        if len(there) == len(paths) and sha256_of(*paths) == wheel.sha256:
            continue
        if there:
            print(f"{there[0].name}: not what the lock says; it is fetched again")
        for path in there:
            path.unlink()
        missing.append(wheel)
    # Hidden, so that a download that was cut off is found again; an empty one is removed.
    fetched = folder / ".fetched"
    for wheel, path in zip(missing, fetch(target, missing, fetched).values(), strict=True):
        split_into(path, folder, stored_names(wheel.file, wheel.size, part_size), part_size)
    shutil.rmtree(fetched)
    return entries, sum(wheel.size for wheel in missing)


def prove(target: Target, lock: Lock, folder: Path, entries: Sequence[StoredFile]) -> str:
    """That a data set's wheels install offline on the target; returns what was done to show it.

    Raises:
        DataError: where something is missing, or pip would replace a package of the image.
    """
    image = {entry.name: entry.version for entry in lock.left_out}
    with tempfile.TemporaryDirectory(prefix="arc-submit-proof-") as scratch:
        wheels, stand_ins = Path(scratch) / "wheels", Path(scratch) / "image"
        wheels.mkdir()
        stand_ins.mkdir()
        for entry in entries:
            link(folder, entry, wheels / entry.file)
        packages = [read_wheel(wheels / entry.file) for entry in entries]
        closure = close(target.requirements, packages, image, target.marker_environment())
        if closure.problems:
            raise DataError(f"target {target.name}: {closure.problems[0]} ({len(closure.problems)} problems); make the lock again")
        if not on_linux():
            return "every requirement of every wheel is met on the target (judged by their metadata; pip's dry run needs Linux)"
        for left in lock.left_out:
            write_stand_in(left, stand_ins)
        resolved = resolve_offline(target, target.requirements, [wheels, stand_ins])
    taken = {canonical(package.distribution.name): package.distribution.version for package in resolved}
    for name, version in image.items():
        if taken.get(name, version) != version:
            raise DataError(f"target {target.name}: {name} {version} of the image would be replaced by {taken[name]}; make the lock again")
    locked = {wheel.name: wheel.version for wheel in lock.wheels}
    wanted = {name: version for name, version in taken.items() if name not in image}
    if wanted != locked:
        differ = sorted(name for name in {*wanted, *locked} if wanted.get(name) != locked.get(name))
        raise DataError(f"target {target.name}: pip offline and the lock differ in {', '.join(map(str, differ))}; make the lock again")
    return f"pip --no-index --dry-run for Python {target.python_minor}: {len(locked)} wheels wanted and there, torch of the image kept"


def link(folder: Path, entry: StoredFile, path: Path) -> None:
    """A stored wheel under the name that pip wants."""
    if len(entry.stored) == 1:
        path.symlink_to((folder / entry.stored[0]).resolve())
        return
    with path.open("wb") as whole:
        for name in entry.stored:
            whole.write((folder / name).read_bytes())


def write_stand_in(package: LeftOut, folder: Path) -> Path:
    """An empty wheel that says it is a package of the image."""
    name = package.name.replace("-", "_")
    path = folder / f"{name}-{package.version}-py3-none-any.whl"
    info = f"{name}-{package.version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: arc_submit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{info}/{file}", text)
    return path


def make_wheelhouse(
    target: Target, folder: Path, title: str | None = None, owner: str | None = None, part_size: int = PART_SIZE
) -> dict[str, Any]:
    """Fetch, prove and describe a target's wheels; returns the figures.

    Raises:
        ArcSubmitError: where that is not possible, with no manifest left in the folder.
    """
    lock = read_lock(target)
    began = time.monotonic()
    entries, fetched = gather(target, lock, folder, part_size)
    gathered = time.monotonic()
    proof = prove(target, lock, folder, entries)
    proven = time.monotonic()
    name = write_metadata(folder, title or f"arc submit wheels {target.name.replace('-', ' ')}", owner)
    write_installer(folder)
    manifest = {
        "target": target.name,
        "python": target.python_minor,
        "image": {entry.name: entry.version for entry in lock.left_out},
        # What the image has is not asked for: a version with another suffix, as in 2.10.0+cu128, is its own business.
        "requirements": [text for text in lock.requirements if text.split("==")[0] not in target.image],
        "stand_in": list(target.stand_in),
        "wheels": [asdict(entry) for entry in entries],
    }
    write_text(folder / WHEELS, as_rows(manifest, "wheels"))
    return {
        "target": target.name,
        "dataset": name,
        "wheels": len(entries),
        "bytes": lock.size,
        "bytes_fetched": fetched,
        "largest": max((entry.size for entry in entries), default=0),
        "left_out": len(lock.left_out),
        "proof": proof,
        "seconds_fetch": round(gathered - began, 1),
        "seconds_proof": round(proven - gathered, 1),
    }


def read_wheelhouse(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder of wheels.

    Raises:
        DataError: where there is none.
    """
    return read_manifest(folder / WHEELS, f"no finished wheels there; make them with arc-submit kaggle wheels --target T --out {folder}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", required=True, help="name of a file in offline_wheels: kaggle, kaggle-next, cpu")
    add("--targets", type=Path, help="folder of the targets and locks (default: offline_wheels of the checkout)")
    add("--out", type=Path, required=True, help="the data set's folder; what is there already and whole is kept")
    add("--title", help="of the data set (default: arc submit wheels TARGET)")
    add("--owner", help="Kaggle user name (default: KAGGLE_USERNAME)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    figures = make_wheelhouse(read_target(args.target, args.targets), args.out, args.title, args.owner)
    print(
        f"{args.out}: {figures['wheels']} wheels, {format_size(figures['bytes'])}, the largest {format_size(figures['largest'])}; "
        f"fetched {format_size(figures['bytes_fetched'])} in {figures['seconds_fetch']} s"
    )
    print(f"proof in {figures['seconds_proof']} s: {figures['proof']}")
    print(f"data set {figures['dataset']}: upload with arc-submit kaggle upload {args.out}")
    return figures
