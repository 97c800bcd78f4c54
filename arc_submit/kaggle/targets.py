"""Targets: the images that wheels are collected for, each a file offline_wheels/NAME.toml with a lock NAME.lock.json beside it.

A target holds an image's Python and glibc versions, the requirements, and the packages that the image is known to have. A lock lists every
wheel by file name, size and sha256, with the packages that require it, and every excluded package with the reason. It holds no address:
pip's own configuration determines where files come from. Does not know pip.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.files import read_json
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.files import format_json

_PLATFORM_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # former names of manylinux_2_MINOR


def targets_folder() -> Path:
    """The folder of the targets in a checkout of the project."""
    return Path(__file__).resolve().parents[2] / "offline_wheels"


@dataclass(frozen=True)
class Target:
    """An image that wheels are collected for.

    Attributes:
        name: of its files.
        folder: that holds them.
        python: version of Python, such as "3.12.12".
        glibc: the newest glibc that a wheel may require, such as "2.35".
        requirements: pinned requirements.
        image: packages that the image has, with their versions; they are excluded from the wheels.
        stand_in: packages that a rehearsal installs in place of an image's.
    """

    name: str
    folder: Path
    python: str
    glibc: str
    requirements: tuple[str, ...]
    image: dict[str, str]
    stand_in: tuple[str, ...] = ()

    @property
    def python_minor(self) -> str:
        """Such as "3.12"."""
        return ".".join(self.python.split(".")[:2])

    @property
    def lock_file(self) -> Path:
        return self.folder / f"{self.name}.lock.json"

    def platforms(self) -> list[str]:
        """Every platform tag that the image supports, the newest first; pip matches tags exactly and does not infer older ones."""
        tags = []
        for minor in range(int(self.glibc.split(".")[1]), 4, -1):
            tags.append(f"manylinux_2_{minor}_x86_64")
            if minor in _PLATFORM_ALIASES:
                tags.append(f"{_PLATFORM_ALIASES[minor]}_x86_64")
        return [*tags, "linux_x86_64"]

    def marker_environment(self) -> dict[str, str]:
        """The values on the image of the variables in markers such as `python_version > "3.11"`."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.python_minor,
            "sys_platform": "linux",
        }


def read_target(name: str, folder: Path | None = None) -> Target:
    """Read NAME.toml; paths in it are relative to the parent of its folder, which is offline_wheels of the checkout by default.

    Raises:
        ConfigError: if there is no such target.
        DataError: if the file is not a target, or its requirements cannot be read.
    """
    folder = folder or targets_folder()
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.toml"))) or "none (run this in a checkout)"
        raise ConfigError(f"--target {name}: not in {folder}; choose from {known}")
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
        requirements = _read_requirements(folder.parent / value["requirements"])
        image = {str(package): str(version) for package, version in value["image"].items()}
        return Target(name, folder, value["python"], value["glibc"], requirements, image, tuple(value.get("stand_in", ())))
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not a target ({type(error).__name__}: {error}); compare it with the others there") from None


def _read_requirements(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the target's `requirements`") from None
    stripped = (line.split("#")[0].strip() for line in lines)
    return tuple(line for line in stripped if line)


@dataclass(frozen=True)
class LockedWheel:
    """One wheel of a lock."""

    name: str
    version: str
    file: str  # its name in the index
    size: int  # bytes
    sha256: str
    required_by: tuple[str, ...]  # names of the packages that require it; empty if only the target itself does


@dataclass(frozen=True)
class ImagePackage:
    """A package that the image provides, and why a lock excludes it."""

    name: str
    version: str
    why: str


@dataclass(frozen=True)
class Lock:
    """The wheels of a target and the packages of its image."""

    target: str
    python: str
    requirements: tuple[str, ...]
    wheels: tuple[LockedWheel, ...]
    image: tuple[ImagePackage, ...]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def image_versions(self) -> dict[str, str]:
        """The versions of the image's packages, by name."""
        return {package.name: package.version for package in self.image}


def write_lock(lock: Lock, path: Path) -> None:
    value = {
        "target": lock.target,
        "python": lock.python,
        "requirements": lock.requirements,
        "wheels": [asdict(wheel) for wheel in lock.wheels],
        "left_out": [asdict(package) for package in lock.image],
    }
    path.write_text(format_json(value, "wheels", "left_out"), encoding="utf-8")


def read_lock(target: Target) -> Lock:
    """Read a target's lock.

    Raises:
        DataError: if it is missing or invalid, or was made for another Python or other requirements than the target's.
    """
    path = target.lock_file
    command = f"arc-submit kaggle lock --target {target.name}"
    if not path.is_file():
        raise DataError(f"{path}: no such lock; make it with {command}")
    try:
        value: dict[str, Any] = read_json(path)
        lock = Lock(
            value["target"],
            value["python"],
            tuple(value["requirements"]),
            tuple(LockedWheel(**{**entry, "required_by": tuple(entry["required_by"])}) for entry in value["wheels"]),
            tuple(ImagePackage(**entry) for entry in value["left_out"]),
        )
    except (DataError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a lock ({type(error).__name__}: {error}); make it again with {command}") from None
    if (lock.python, lock.requirements) != (target.python, target.requirements):
        raise DataError(f"{path}: made for other requirements than {target.name}.toml's; make it again with {command}")
    return lock
