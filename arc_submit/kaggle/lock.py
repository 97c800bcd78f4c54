"""`arc-submit kaggle lock`: which wheels a target needs, resolved once by pip and written down by file, size and sha256.

Every wheel is downloaded for this, so that a lock names only what is to be had and its sizes are those of files. Knows nothing about
data sets.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from arc_submit.errors import DataError
from arc_submit.kaggle.dependencies import Distribution, canonical, close
from arc_submit.kaggle.download import fetch
from arc_submit.kaggle.files import format_size
from arc_submit.kaggle.pip import Resolved, resolve
from arc_submit.kaggle.targets import LeftOut, Lock, LockedWheel, Target, read_target, write_lock


def make_lock(target: Target, wheels: Path) -> Lock:
    """Resolve a target and download what it needs into a folder.

    Raises:
        DataError: where pip finds no set, the set is not whole for the target's Python, or a file is not to be had.
    """
    resolved = resolve(target, target.requirements)
    out = left_out(target, resolved)
    image = {entry.name: entry.version for entry in out}
    kept = [package for package in resolved if canonical(package.distribution.name) not in image]
    closure = close(target.requirements, [package.distribution for package in kept], image, target.marker_environment())
    if closure.problems:
        raise DataError(f"target {target.name}: the set is not whole: {closure.problems[0]} ({len(closure.problems)} problems)")
    # What only the image's own packages need is the image's as well.
    needed = [package for package in kept if canonical(package.distribution.name) in closure.required_by]
    files = fetch(target, [_locked(package, 0, ()) for package in needed], wheels)
    locked = []
    for package in needed:
        required_by = closure.required_by[canonical(package.distribution.name)]
        locked.append(_locked(package, files[package.file].stat().st_size, required_by))
    return Lock(target.name, target.python, target.requirements, tuple(locked), tuple(out))


def left_out(target: Target, resolved: list[Resolved]) -> list[LeftOut]:
    """What the image has: the packages that its target names, and what these pin with ==.

    Raises:
        DataError: where pip chose another version of an image's package than the image has.
    """
    by_name = {canonical(package.distribution.name): package.distribution for package in resolved}
    out: dict[str, LeftOut] = {}
    for name, version in target.image.items():
        found = by_name.get(canonical(name))
        if found and found.version.split("+")[0] != version.split("+")[0]:
            raise DataError(
                f"target {target.name}: the image has {name} {version} and the requirements lead to {found.version}; change one"
            )
        out[canonical(name)] = LeftOut(canonical(name), version, "the image has it")
        for pinned, pin in _pins(found, by_name, target) if found else ():
            out.setdefault(pinned, LeftOut(pinned, pin, f"pinned by {name} {version}, which the image has"))
    return [out[name] for name in sorted(out)]


def _pins(package: Distribution, by_name: Mapping[str, Distribution], target: Target) -> list[tuple[str, str]]:
    """What a package pins with ==, and what that pins in its turn: torch names its CUDA libraries as extras of cuda-toolkit."""
    pins: dict[str, str] = {}
    waiting = [(package, "")]
    seen = set()
    while waiting:
        package, extra = waiting.pop()
        for text in package.requires:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({**target.marker_environment(), "extra": extra}):
                continue
            name, specifiers = canonical(requirement.name), list(requirement.specifier)
            if name not in by_name or len(specifiers) != 1 or specifiers[0].operator not in ("==", "==="):
                continue
            pins[name] = by_name[name].version
            for wanted in ("", *requirement.extras):
                if (name, wanted) not in seen:
                    seen.add((name, wanted))
                    waiting.append((by_name[name], wanted))
    return sorted(pins.items())


def _locked(package: Resolved, size: int, required_by: tuple[str, ...]) -> LockedWheel:
    name = canonical(package.distribution.name)
    return LockedWheel(name, package.distribution.version, package.file, size, package.sha256, required_by)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", required=True, help="name of a file in offline_wheels: kaggle, kaggle-next, cpu")
    parser.add_argument("--targets", type=Path, help="folder of the targets (default: offline_wheels of the checkout)")
    parser.add_argument("--wheels", type=Path, help="folder that keeps the downloaded wheels (default: they are deleted)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    target = read_target(args.target, args.targets)
    with tempfile.TemporaryDirectory(prefix="arc-submit-wheels-") as scratch:
        lock = make_lock(target, args.wheels or Path(scratch))
    write_lock(lock, target.lock_file)
    print(f"{target.lock_file}: {len(lock.wheels)} wheels, {format_size(lock.size)}; {len(lock.left_out)} packages are left out")
    for wheel in sorted(lock.wheels, key=lambda wheel: -wheel.size)[:8]:
        print(f"  {format_size(wheel.size):>9}  {wheel.name} {wheel.version}, for {', '.join(wheel.required_by) or 'the target'}")
    return {
        "target": target.name,
        "wheels": len(lock.wheels),
        "bytes": lock.size,
        "left_out": len(lock.left_out),
        "file": str(target.lock_file),
    }
