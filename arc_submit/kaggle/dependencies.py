"""Whether a set of packages is whole: everything that one of them requires is in it, in a version that serves.

pip judges markers such as `python_version > "3.11"` by the Python that it runs on, even where it is told to look for wheels of another.
Here they are judged by the target's: wheels resolved without this lacked `six` on the image, and had a setuptools that vllm refuses.
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
    """A package in one version, with its requirements as its metadata write them."""

    name: str
    version: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Closure:
    """What a set comes to.

    Attributes:
        required_by: canonical name of each package that is needed, with the names of those that require it.
        problems: a line for each requirement that the set does not meet.
    """

    required_by: dict[str, tuple[str, ...]]
    problems: tuple[str, ...]


def canonical(name: str) -> str:
    """A package's name as all its spellings are compared: "Foo.Bar_baz" is "foo-bar-baz"."""
    return str(canonicalize_name(name))


def read_wheel(path: Path) -> Distribution:
    """Name, version and requirements of a wheel file.

    Raises:
        DataError: where it is not a wheel.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")]
            message = message_from_string(archive.read(names[0]).decode("utf-8"))
    except (OSError, zipfile.BadZipFile, IndexError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a wheel ({type(error).__name__}: {error}); delete it and fetch it again") from None
    return Distribution(str(message["Name"]), str(message["Version"]), tuple(map(str, message.get_all("Requires-Dist", []))))


def close(
    requirements: Iterable[str], packages: Iterable[Distribution], image: Mapping[str, str], environment: Mapping[str, str]
) -> Closure:
    """Follow requirements through a set of packages.

    Args:
        requirements: what is asked for.
        packages: the set.
        image: packages that are there already, with their versions; what they require is theirs.
        environment: what markers see (Target.marker_environment).
    """
    have = {canonical(package.name): package for package in packages}
    there = {canonical(name): version for name, version in image.items()}
    required_by: dict[str, set[str]] = {}
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    waiting: list[tuple[str, str]] = []  # (name of a package, one of its extras or "")

    def need(text: str, by: str, extra: str = "") -> None:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            problems.append(f"{by or 'the target'} requires {text!r}, which is no requirement ({error})")
            return
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            return
        name = canonical(requirement.name)
        version = there.get(name) or (have[name].version if name in have else None)
        asker = by or "the target"
        if version is None:
            problems.append(f"{asker} requires {requirement}, which is missing")
            return
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{asker} requires {requirement}, and {name} is {version}")
        if name in there:
            return
        required_by.setdefault(name, set()).update({by} - {""})
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting.append((name, wanted))

    for text in requirements:
        need(text, "")
    while waiting:
        name, extra = waiting.pop()
        for text in have[canonical(name)].requires:
            need(text, have[canonical(name)].name, extra)
    return Closure({name: tuple(sorted(by)) for name, by in sorted(required_by.items())}, tuple(problems))
