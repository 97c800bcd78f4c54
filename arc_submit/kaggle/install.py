"""Installs the packages of a Kaggle kernel without internet from the attached data sets, each of which ships it as arc_submit_install.py.

A notebook's first cell runs it before arc_submit is installed and before anything imports torch, so it needs only Python and pip, and
imports nothing of arc_submit; other modules use its helpers. It keeps the image's torch, and pip leaves the image's other packages
where their versions suffice. An error is one line.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WHEELS_MANIFEST = "arc_submit_wheels.json"
BUNDLE_MANIFEST = "arc_submit_bundle.json"
_DEPTH = 7  # folders below the inputs in which a data set may lie


class InstallError(RuntimeError):
    """The installation cannot continue; one line with the remedy."""


def install(inputs: Path) -> dict[str, Any]:
    """Install the attached wheels and the library into the running Python; prints and returns the figures.

    Args:
        inputs: folder below which the data sets lie, in any layout: /kaggle/input.

    Raises:
        InstallError: if files are missing, the wheels are for another image, or pip cannot install them.
    """
    start = time.monotonic()
    if "torch" in sys.modules:
        raise InstallError("torch is imported already: restart the kernel and run this cell first")
    found = (_find_wheels(inputs), _only_one(BUNDLE_MANIFEST, _find_manifests(inputs, BUNDLE_MANIFEST)))
    manifests = [path for path in found if path is not None]
    if not manifests:
        missing = f"neither {WHEELS_MANIFEST} nor {BUNDLE_MANIFEST} in any data set"
        raise InstallError(f"{inputs}: {missing}; attach the data sets of arc-submit kaggle wheels and bundle")
    torch_before = _version("torch")
    with tempfile.TemporaryDirectory(prefix="arc-submit-install-") as scratch:
        files = sum(_restore_wheels(path, Path(scratch)) for path in manifests)
        requirements = [text for path in manifests for text in _read(path)["requirements"]]
        output = _pip_install(Path(scratch), requirements, torch_before)
    importlib.invalidate_caches()
    installed = re.findall(r"Successfully installed (.*)", output)
    figures = {
        "installed": installed[-1].split() if installed else [],
        "kept": len(set(re.findall(r"Requirement already satisfied: ([\w.-]+)", output))),
        "files": files,
        "torch": _version("torch"),
        "seconds": round(time.monotonic() - start, 1),
    }
    if torch_before not in (None, figures["torch"]):
        raise InstallError(f"torch {torch_before} of the image was replaced by {figures['torch']}; report this, and restart the kernel")
    folders = ", ".join(str(path.parent) for path in manifests)
    print(
        f"installed {len(figures['installed'])} packages from {files} files of {folders}; {figures['kept']} of the image's "
        f"packages suffice, torch {figures['torch']}{'' if torch_before else ' is new'}; {figures['seconds']} s"
    )
    return figures


def _read(manifest: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    return value


def _find_manifests(inputs: Path, name: str) -> list[Path]:
    return sorted(path for path in inputs.rglob(name) if len(path.relative_to(inputs).parts) <= _DEPTH + 1)


def _only_one(name: str, manifests: list[Path]) -> Path | None:
    if len(manifests) > 1:
        raise InstallError(f"{name} is in {', '.join(str(path.parent) for path in manifests)}; detach all but one")
    return manifests[0] if manifests else None


def _find_wheels(inputs: Path) -> Path | None:
    """The manifest of the attached wheels that are for this image; None if no wheels are attached."""
    problems = {path: _image_problem(_read(path)) for path in _find_manifests(inputs, WHEELS_MANIFEST)}
    usable = [path for path, problem in problems.items() if not problem]
    if problems and not usable:
        raise InstallError("; ".join(f"{path.parent}: {problem}" for path, problem in problems.items()))
    return _only_one(WHEELS_MANIFEST, usable)


def _image_problem(manifest: dict[str, Any]) -> str:
    """Why wheels are not for this Python and its torch; empty if they are."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    remedy = "attach the wheels of this image's target, or run the kernel on the image of these wheels"
    if manifest["python"] != python:
        return f"wheels for Python {manifest['python']}, and this is {python}; {remedy}"
    expected, found = manifest["image"].get("torch"), _version("torch")
    # An image may omit the CUDA version after the +, so it counts only if both have one.
    if expected and (
        found is None or found.split("+")[0] != expected.split("+")[0] or ("+" in found and "+" in expected and found != expected)
    ):
        return f"wheels for torch {expected}, and here is {found or 'none'}; {remedy}"
    return ""


def _restore_wheels(manifest: Path, folder: Path) -> int:
    """Put a data set's wheels into a folder, under their own names; returns their number."""
    entries = _read(manifest)["wheels"]
    missing = []
    for entry in entries:
        stored = [manifest.parent / name for name in entry["stored"]]
        if sum(path.stat().st_size for path in stored if path.is_file()) == entry["size"]:
            restore_file(stored, folder / entry["file"])
        else:
            missing.append(entry["file"])
    if missing:
        count = f" ({len(missing)} of {len(entries)} files)" if len(missing) > 1 else ""
        raise InstallError(f"{manifest.parent}: {missing[0]} is missing or truncated{count}; upload the data set again")
    return len(entries)


def restore_file(stored: Sequence[Path], path: Path) -> None:
    """Make a file from its stored parts: a link to the only one, else their concatenation."""
    if len(stored) == 1:
        path.symlink_to(stored[0].resolve())
        return
    with path.open("wb") as whole:
        for part in stored:
            with part.open("rb") as source:
                shutil.copyfileobj(source, whole, 1 << 20)


def _pip_install(folder: Path, requirements: list[str], torch: str | None) -> str:
    """Install from a folder alone, with the version of torch fixed; returns pip's output."""
    required, constraints = folder / "requirements.txt", folder / "constraints.txt"
    required.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    constraints.write_text(f"torch=={torch}\n" if torch else "", encoding="utf-8")
    # Without --no-compile, pip compiles thousands of files that no run imports.
    options = ["--no-index", "--find-links", str(folder), "--no-compile", "--root-user-action", "ignore"]
    process = run_pip([sys.executable, "-m", "pip", "install", *options, "-r", str(required), "-c", str(constraints)], offline=True)
    if process.returncode:
        problem = last_error(process.stderr)
        raise InstallError(f"pip: {problem}; the attached wheels do not suffice, attach those of arc-submit kaggle wheels")
    return process.stdout


def run_pip(command: Sequence[str], offline: bool) -> subprocess.CompletedProcess[str]:
    """Run a command that starts pip, with its output captured; offline, without the user's pip configuration."""
    # A notebook's kernel sets FORCE_COLOR, with which pip colours even the text that is parsed here.
    dropped = ("FORCE_COLOR", "CLICOLOR_FORCE")
    environment = {name: value for name, value in os.environ.items() if name not in dropped and not (offline and name.startswith("PIP_"))}
    environment |= {"NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    if offline:
        environment["PIP_CONFIG_FILE"] = os.devnull
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def last_error(text: str) -> str:
    """The last line of pip's standard error that begins with ERROR, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it failed without a message"])[-1].removeprefix("ERROR:").strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    install(Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle")) / "input")
