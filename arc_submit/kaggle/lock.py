"""`arc-submit kaggle lock`: resolves a target's requirements with pip, and writes each wheel's file name, size and sha256 to its lock.

Every wheel is downloaded for this, so a lock names only wheels that are available, with the sizes of their files. Does not know Kaggle.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from arc_submit.errors import DataError
from arc_submit.kaggle.dependencies import Distribution, canonical_name, find_closure
from arc_submit.kaggle.files import format_size
from arc_submit.kaggle.pip import ResolvedPackage, download_wheels, resolve
from arc_submit.kaggle.targets import ImagePackage, Lock, LockedWheel, Target, read_target, write_lock


def make_lock(target: Target, folder: Path) -> Lock:
    """Resolve a target's requirements and download the wheels into a folder.

    Raises:
        DataError: if pip finds no solution, the set is incomplete for the target's Python, or a file is not available.
    """
    resolved = resolve(target, target.requirements)
    image = _find_image_packages(target, {package.distribution.canonical: package.distribution for package in resolved})
    versions = {package.name: package.version for package in image}
    candidates = [package for package in resolved if package.distribution.canonical not in versions]
    closure = find_closure(target.requirements, [package.distribution for package in candidates], versions, target.marker_environment())
    if closure.problems:
        raise DataError(f"target {target.name}: the set is incomplete: {closure.problems[0]} ({len(closure.problems)} problems)")
    # The closure excludes the packages that only the image's own packages need: the image has them.
    needed = [package for package in candidates if package.distribution.canonical in closure.required_by]
    files = download_wheels(target, [_locked(package) for package in needed], folder)
    wheels = [
        _locked(package, files[package.file].stat().st_size, closure.required_by[package.distribution.canonical]) for package in needed
    ]
    return Lock(target.name, target.python, target.requirements, tuple(wheels), tuple(image))


def _find_image_packages(target: Target, resolved: Mapping[str, Distribution]) -> list[ImagePackage]:
    """The packages of the image, which its target names, and those that they pin with ==; DataError if pip chose other versions."""
    packages: dict[str, ImagePackage] = {}
    for name, version in target.image.items():
        canonical = canonical_name(name)
        found = resolved.get(canonical)
        if found and found.version.split("+")[0] != version.split("+")[0]:
            problem = f"the image has {name} {version} and the requirements lead to {found.version}"
            raise DataError(f"target {target.name}: {problem}; change one of them")
        packages[canonical] = ImagePackage(canonical, version, "the image has it")
        for pinned in _find_pins(canonical, resolved, target) if found else ():
            packages.setdefault(pinned, ImagePackage(pinned, resolved[pinned].version, f"pinned by {name} {version}, which the image has"))
    return [packages[name] for name in sorted(packages)]


def _find_pins(name: str, resolved: Mapping[str, Distribution], target: Target) -> set[str]:
    """The packages that one pins with ==, directly or through others and their extras: torch pins its CUDA libraries so."""
    pins = [replace(package, requires=tuple(filter(_is_pin, package.requires))) for package in resolved.values()]
    return {*find_closure([name], pins, {}, target.marker_environment()).required_by} - {name}


def _is_pin(requirement: str) -> bool:
    return [specifier.operator in ("==", "===") for specifier in Requirement(requirement).specifier] == [True]


def _locked(package: ResolvedPackage, size: int = 0, required_by: tuple[str, ...] = ()) -> LockedWheel:
    return LockedWheel(package.distribution.canonical, package.distribution.version, package.file, size, package.sha256, required_by)


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a target."""
    parser.add_argument("--target", required=True, help="name of a file in offline_wheels: kaggle, kaggle-next, cpu")
    parser.add_argument("--targets", type=Path, help="folder of the targets and locks (default: offline_wheels of the checkout)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target_options(parser)
    parser.add_argument("--wheels", type=Path, help="folder in which the downloaded wheels stay (default: they are deleted)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    target = read_target(args.target, args.targets)
    with tempfile.TemporaryDirectory(prefix="arc-submit-wheels-") as scratch:
        lock = make_lock(target, args.wheels or Path(scratch))
    write_lock(lock, target.lock_file)
    print(f"{target.lock_file}: {len(lock.wheels)} wheels, {format_size(lock.size)}; {len(lock.image)} packages of the image are excluded")
    for wheel in sorted(lock.wheels, key=lambda wheel: -wheel.size)[:8]:
        print(f"  {format_size(wheel.size):>9}  {wheel.name} {wheel.version}, for {', '.join(wheel.required_by) or 'the target'}")
    return {
        "target": target.name,
        "wheels": len(lock.wheels),
        "bytes": lock.size,
        "left_out": len(lock.image),
        "file": str(target.lock_file),
    }
