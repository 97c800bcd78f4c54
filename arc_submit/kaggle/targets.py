"""Targets: the images that wheels are gathered for, each a file offline_wheels/NAME.toml with a lock NAME.lock.json beside it.

A target says which Python and which glibc an image has, what is asked for, and which packages it is known to have already. A lock names
every wheel by file, size and sha256, with what requires it, and every package that is left out with the reason; it holds no address, so
that pip's own configuration says where the files come from. Knows nothing about pip.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError

_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def targets_folder() -> Path:
    """Where the targets lie in a checkout of the project."""
    return Path(__file__).resolve().parents[2] / "offline_wheels"


@dataclass(frozen=True)
class Target:
    """An image that wheels are gathered for.

    Attributes:
        name: of its files.
        folder: where they lie.
        python: version of Python, such as "3.12.12".
        glibc: the newest glibc that a wheel may ask for, such as "2.35".
        requirements: what is asked for, each pinned.
        image: packages that the image has, with their versions; they are left out.
        stand_in: packages that a rehearsal has in place of an image's.
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
        """Every platform tag that the image can take, the newest first.

        pip matches a tag exactly: manylinux_2_28 alone does not find a wheel that is tagged manylinux2014.
        """
        newest = int(self.glibc.split(".")[1])
        tags = []
        for minor in range(newest, 4, -1):
            tags.append(f"manylinux_2_{minor}_x86_64")
            if minor in _ALIASES:
                tags.append(f"{_ALIASES[minor]}_x86_64")
        return [*tags, "linux_x86_64"]

    def marker_environment(self) -> dict[str, str]:
        """What environment markers such as `python_version > "3.11"` see on the image."""
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
    """Read NAME.toml; paths in it begin at the folder that holds `offline_wheels`.

    Raises:
        ConfigError: where there is no such target.
        DataError: where it is not one.
    """
    folder = folder or targets_folder()
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(found.stem for found in folder.glob("*.toml"))
        raise ConfigError(f"--target {name}: not in {folder}; choose from {', '.join(known) or 'none (run this in a checkout)'}")
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
        requirements = read_requirements(folder.parent / value["requirements"])
        return Target(
            name,
            folder,
            value["python"],
            value["glibc"],
            requirements,
            {str(package): str(version) for package, version in value["image"].items()},
            tuple(value.get("stand_in", ())),
        )
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: not a target ({type(error).__name__}: {error}); compare it with the others there") from None


def read_requirements(path: Path) -> tuple[str, ...]:
    """The requirements of a file, without comments.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the target's `requirements`") from None
    stripped = (line.split("#")[0].strip() for line in lines)
    return tuple(line for line in stripped if line)


@dataclass(frozen=True)
class LockedWheel:
    """One wheel of a lock.

    Attributes:
        file: its name as the index gives it.
        size: bytes.
        required_by: names of the packages that ask for it; empty where the target itself does.
    """

    name: str
    version: str
    file: str
    size: int
    sha256: str
    required_by: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """A package that the image has, why, and in what version."""

    name: str
    version: str
    why: str


@dataclass(frozen=True)
class Lock:
    """What a target's wheelhouse holds and leaves out."""

    target: str
    python: str
    requirements: tuple[str, ...]
    wheels: tuple[LockedWheel, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock with a line for each wheel, so that a diff of two locks can be read."""
    lines = ["{", f' "target": {json.dumps(lock.target)},', f' "python": {json.dumps(lock.python)},']
    lines.append(f' "requirements": {json.dumps(lock.requirements)},')
    for key, entries in (("wheels", lock.wheels), ("left_out", lock.left_out)):
        rows = ",\n".join(f"  {json.dumps(asdict(entry))}" for entry in entries)
        lines.append(f' "{key}": [\n{rows}\n ]' + ("," if key == "wheels" else ""))
    path.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")


def read_lock(target: Target) -> Lock:
    """Read a target's lock.

    Raises:
        DataError: where there is none, it is not one, or it was made for another Python or other requirements than the target's.
    """
    path = target.lock_file
    if not path.is_file():
        raise DataError(f"{path}: there is no lock yet; make it with arc-submit kaggle lock --target {target.name}")
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lock = Lock(
            value["target"],
            value["python"],
            tuple(value["requirements"]),
            tuple(LockedWheel(**{**entry, "required_by": tuple(entry["required_by"])}) for entry in value["wheels"]),
            tuple(LeftOut(**entry) for entry in value["left_out"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a lock ({type(error).__name__}: {error}); make it again with arc-submit kaggle lock") from None
    if (lock.python, lock.requirements) != (target.python, target.requirements):
        raise DataError(f"{path}: made for other requirements than {target.name}.toml's; arc-submit kaggle lock --target {target.name}")
    return lock
