"""Makes small wheels, a folder of them as pip's only index, and a target that requires them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest


def write_wheel(
    folder: Path, name: str, version: str, requires: tuple[str, ...] = (), tag: str = "py3-none-any", content: bytes = b"", code: str = ""
) -> Path:
    """Make a wheel with one module that holds its version; `content` makes it larger, `code` is appended to the module."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {text}\n" for text in requires)
    metadata += "".join(f"Provides-Extra: {extra}\n" for extra in re.findall(r'extra == "(\w+)"', " ".join(requires)))
    files = {
        f"{module}.py": f"version = {version!r}\n{code}".encode(),
        f"{module}_data.txt": content,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]).encode()
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
    return path


def only_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let pip find packages only in this folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def write_target(folder: Path, requirements: str, image: dict[str, str], python: str = "3.12.12", stand_in: tuple[str, ...] = ()) -> Path:
    """Write the files of a target `small`; returns the folder for read_target."""
    targets = folder / "offline_wheels"
    targets.mkdir(parents=True, exist_ok=True)
    (targets / "small.txt").write_text(requirements)
    lines = [
        f'python = "{python}"',
        'glibc = "2.35"',
        'requirements = "offline_wheels/small.txt"',
        f"stand_in = {list(stand_in)!r}",
        "[image]",
    ]
    lines += [f'{name} = "{version}"' for name, version in image.items()]
    (targets / "small.toml").write_text("\n".join(lines) + "\n")
    return targets
