"""`arc-submit kaggle wheels`: makes a data set of exactly the wheels in a target's lock, and verifies that they install offline.

The image's packages are excluded. Complete files that the folder already holds stay; the rest is downloaded. Then pip resolves the
requirements from the folder alone, for the target's Python and platform, with empty stand-ins for the image's packages. It must need every
wheel of the lock, no other, and no other version of an image's package. Does not know notebooks.
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
    check_total_size,
    read_manifest,
    refuse_foreign_files,
    split_file,
    stored_names,
    write_manifest,
    write_metadata,
)
from arc_submit.kaggle.dependencies import find_closure, read_wheel
from arc_submit.kaggle.files import format_size, sha256_of
from arc_submit.kaggle.install import WHEELS_MANIFEST, restore_file
from arc_submit.kaggle.lock import add_target_options
from arc_submit.kaggle.pip import download_wheels, is_linux_x86_64, resolve
from arc_submit.kaggle.targets import ImagePackage, Lock, LockedWheel, Target, read_lock, read_target


def _collect_wheels(target: Target, lock: Lock, folder: Path, part_size: int = PART_SIZE) -> tuple[list[StoredFile], int]:
    """Complete the lock's wheels in a data set's folder; returns the stored files and the number of downloaded bytes."""
    entries = [StoredFile(wheel.file, stored_names(wheel.file, wheel.size, part_size), wheel.size, wheel.sha256) for wheel in lock.wheels]
    check_total_size(folder, lock.size)
    refuse_foreign_files(folder, [WHEELS_MANIFEST, ".fetched", *(name for entry in entries for name in entry.stored)])
    folder.mkdir(parents=True, exist_ok=True)
    # The manifest is written last: a folder without one is unfinished.
    (folder / WHEELS_MANIFEST).unlink(missing_ok=True)
    missing: dict[str, tuple[LockedWheel, StoredFile]] = {}
    for wheel, entry in zip(lock.wheels, entries, strict=True):
        paths = [folder / name for name in entry.stored]
        existing = [path for path in paths if path.exists()]
        if len(existing) == len(paths) and sha256_of(*paths) == wheel.sha256:
            continue
        if existing:
            print(f"{existing[0].name}: differs from the lock; it is downloaded again")
        for path in existing:
            path.unlink()
        missing[wheel.file] = wheel, entry
    # An interrupted download continues from this folder; an upload refuses hidden files, should it remain.
    downloads = folder / ".fetched"
    wheels = [wheel for wheel, _ in missing.values()]
    for file, path in download_wheels(target, wheels, downloads).items():
        split_file(path, folder, missing[file][1].stored, part_size)
    shutil.rmtree(downloads)
    return entries, sum(wheel.size for wheel in wheels)


def _verify_offline_install(target: Target, lock: Lock, folder: Path, entries: Sequence[StoredFile]) -> str:
    """Verify that a data set's wheels install offline on the target, or raise DataError; returns a description of the check."""
    with tempfile.TemporaryDirectory(prefix="arc-submit-proof-") as scratch:
        wheels, stand_ins = Path(scratch) / "wheels", Path(scratch) / "image"
        wheels.mkdir()
        stand_ins.mkdir()
        for entry in entries:
            restore_file([folder / name for name in entry.stored], wheels / entry.file)
        packages = [read_wheel(wheels / entry.file) for entry in entries]
        closure = find_closure(target.requirements, packages, lock.image_versions, target.marker_environment())
        if closure.problems:
            raise DataError(f"target {target.name}: {closure.problems[0]} ({len(closure.problems)} problems); make the lock again")
        if not is_linux_x86_64():
            return "the wheels' metadata meet every requirement on the target (pip's dry run needs Linux)"
        for package in lock.image:
            _write_stand_in(package, stand_ins)
        resolved = resolve(target, target.requirements, [wheels, stand_ins])
    versions = {package.distribution.canonical: package.distribution.version for package in resolved}
    for name, version in lock.image_versions.items():
        chosen = versions.pop(name, version)
        if chosen != version:
            raise DataError(f"target {target.name}: {name} {version} of the image would be replaced by {chosen}; make the lock again")
    locked = {wheel.name: wheel.version for wheel in lock.wheels}
    differing = sorted(name for name in {*versions, *locked} if versions.get(name) != locked.get(name))
    if differing:
        raise DataError(f"target {target.name}: pip offline and the lock differ in {', '.join(differing)}; make the lock again")
    return f"pip --no-index --dry-run for Python {target.python_minor}: all {len(locked)} wheels are needed, the image's torch stays"


def _write_stand_in(package: ImagePackage, folder: Path) -> None:
    """Write an empty wheel with the name and version of an image's package."""
    name = package.name.replace("-", "_")
    info = f"{name}-{package.version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{package.version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: arc_submit\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def make_wheelhouse(
    target: Target, folder: Path, title: str | None = None, owner: str | None = None, part_size: int = PART_SIZE
) -> dict[str, Any]:
    """Collect, verify and describe a target's wheels; returns the figures.

    Raises:
        ArcSubmitError: if that is not possible; the folder then has no manifest.
    """
    lock = read_lock(target)
    start = time.monotonic()
    entries, downloaded = _collect_wheels(target, lock, folder, part_size)
    collected = time.monotonic()
    proof = _verify_offline_install(target, lock, folder, entries)
    verified = time.monotonic()
    name = write_metadata(folder, title or f"arc submit wheels {target.name.replace('-', ' ')}", owner)
    manifest = {
        "target": target.name,
        "python": target.python_minor,
        "image": lock.image_versions,
        # The image's packages are not required: their local versions, as in 2.10.0+cu128, may differ from the pins.
        "requirements": [text for text in lock.requirements if text.split("==")[0] not in target.image],
        "stand_in": list(target.stand_in),
        "wheels": [asdict(entry) for entry in entries],
    }
    write_manifest(folder / WHEELS_MANIFEST, manifest, "wheels")
    return {
        "target": target.name,
        "dataset": name,
        "wheels": len(entries),
        "bytes": lock.size,
        "bytes_fetched": downloaded,
        "largest": max((entry.size for entry in entries), default=0),
        "left_out": len(lock.image),
        "proof": proof,
        "seconds_fetch": round(collected - start, 1),
        "seconds_proof": round(verified - collected, 1),
    }


def read_wheelhouse(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder of wheels; DataError if there is none."""
    command = f"arc-submit kaggle wheels --target T --out {folder}"
    return read_manifest(folder / WHEELS_MANIFEST, f"no finished wheels there; make them with {command}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_options(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the data set's folder; complete files that it already holds stay")
    add("--title", help="of the data set (default: arc submit wheels TARGET)")
    add("--owner", help="Kaggle user name (default: KAGGLE_USERNAME)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    figures = make_wheelhouse(read_target(args.target, args.targets), args.out, args.title, args.owner)
    print(
        f"{args.out}: {figures['wheels']} wheels, {format_size(figures['bytes'])}, the largest {format_size(figures['largest'])}; "
        f"downloaded {format_size(figures['bytes_fetched'])} in {figures['seconds_fetch']} s"
    )
    print(f"verified in {figures['seconds_proof']} s: {figures['proof']}")
    print(f"data set {figures['dataset']}: upload with arc-submit kaggle upload {args.out}")
    return figures
