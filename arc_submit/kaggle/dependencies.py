"""Checks that a set of packages is complete: it holds everything that its packages require, in a version that they accept.

pip evaluates markers such as `python_version > "3.11"` for the Python that it runs on, even with --python-version. Here they are evaluated
for the target's Python.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from arc_submit.errors import DataError


@dataclass(frozen=True)
class Distribution:
    """A version of a package, with the requirements of its metadata."""

    name: str
    version: str
    requires: tuple[str, ...] = ()

    @property
    def canonical(self) -> str:
        """The name in the form by which packages are compared."""
        return canonical_name(self.name)


@dataclass(frozen=True)
class Closure:
    """The packages that some requirements need, directly or through others."""

    required_by: dict[str, tuple[str, ...]]  # for the canonical name of each package, the names of those that require it
    problems: tuple[str, ...]  # a line for each requirement that the set does not meet


def canonical_name(name: str) -> str:
    """One form for all spellings of a package's name: "Foo.Bar_baz" is "foo-bar-baz"."""
    return str(canonicalize_name(name))


def read_wheel(path: Path) -> Distribution:
    """Name, version and requirements of a wheel file; DataError if it is not a wheel."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
            metadata = message_from_string(archive.read(names[0]).decode("utf-8"))
    except (OSError, zipfile.BadZipFile, IndexError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a wheel ({type(error).__name__}: {error}); delete it and download it again") from None
    return Distribution(str(metadata["Name"]), str(metadata["Version"]), tuple(map(str, metadata.get_all("Requires-Dist", []))))


def find_closure(
    requirements: Iterable[str], packages: Iterable[Distribution], image: Mapping[str, str], environment: Mapping[str, str]
) -> Closure:
    """Follow requirements through a set of packages.

    Args:
        requirements: where to begin.
        packages: the set.
        image: versions of packages that are installed already, by name; their own requirements are not followed.
        environment: values for markers (Target.marker_environment).
    """
    by_name = {package.canonical: package for package in packages}
    installed = {canonical_name(name): version for name, version in image.items()}
    required_by: dict[str, set[str]] = {}
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    pending: list[tuple[str, str]] = []  # (name of a package, one of its extras or "")

    def follow(text: str, requirer: str, extra: str = "") -> None:
        who = requirer or "the target"
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            problems.append(f"{who} requires {text!r}, which is not a requirement ({error})")
            return
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            return
        name = canonical_name(requirement.name)
        version = installed.get(name) or (by_name[name].version if name in by_name else None)
        if version is None:
            problems.append(f"{who} requires {requirement}, which is missing")
            return
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{who} requires {requirement}, and {name} is {version}")
        if name in installed:
            return
        required_by.setdefault(name, set()).update({requirer} - {""})
        for key in [(name, extra) for extra in ("", *requirement.extras)]:
            if key not in seen:
                seen.add(key)
                pending.append(key)

    for text in requirements:
        follow(text, "")
    while pending:
        name, extra = pending.pop()
        for text in by_name[name].requires:
            follow(text, by_name[name].name, extra)
    return Closure({name: tuple(sorted(names)) for name, names in sorted(required_by.items())}, tuple(problems))
