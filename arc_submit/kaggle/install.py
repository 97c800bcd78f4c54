"""Installs what a Kaggle kernel without internet needs, from the data sets that are attached; shipped in each as arc_submit_install.py.

Runs before arc_submit is there, so it needs nothing but Python and pip. A notebook's first cell starts it, before anything imports torch.
The image's torch stays; of its other packages pip keeps those that serve. What is wrong ends in one line.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WHEELS = "arc_submit_wheels.json"
BUNDLE = "arc_submit_bundle.json"
_DEPTH = 7  # folders below the inputs in which a data set may lie


class InstallError(RuntimeError):
    """What keeps the installation from going on, in one line with the remedy."""


def install(inputs: Path) -> dict[str, Any]:
    """Install the attached wheels and the library into the Python that runs this; prints and returns what was done.

    Args:
        inputs: folder below which the data sets lie, in whatever layout: /kaggle/input.

    Raises:
        InstallError: where files are missing, the wheels are another image's, or pip cannot install them.
    """
    began = time.monotonic()
    if "torch" in sys.modules:
        raise InstallError("torch is imported already: restart the kernel and run this cell first")
    wheels, bundle = _wheelhouse(inputs), _only(inputs, BUNDLE)
    if wheels is None and bundle is None:
        raise InstallError(f"{inputs}: neither {WHEELS} nor {BUNDLE} in any data set; attach what arc-submit kaggle wheels and bundle make")
    torch_before = _version("torch")
    with tempfile.TemporaryDirectory(prefix="arc-submit-install-") as scratch:
        requirements, files = [], 0
        for manifest in (wheels, bundle):
            if manifest is not None:
                files += _lay_out(manifest, Path(scratch))
                requirements += json.loads(manifest.read_text(encoding="utf-8"))["requirements"]
        said = _pip(Path(scratch), requirements, torch_before)
    importlib.invalidate_caches()
    installed = re.findall(r"Successfully installed (.*)", said)
    figures = {
        "installed": installed[-1].split() if installed else [],
        "kept": len(set(re.findall(r"Requirement already satisfied: ([\w.-]+)", said))),
        "files": files,
        "torch": _version("torch"),
        "seconds": round(time.monotonic() - began, 1),
    }
    if torch_before not in (None, figures["torch"]):
        raise InstallError(f"torch {torch_before} of the image was replaced by {figures['torch']}; report this, and restart the kernel")
    folders = ", ".join(str(manifest.parent) for manifest in (wheels, bundle) if manifest is not None)
    print(
        f"installed {len(figures['installed'])} packages from {files} files of {folders}; kept {figures['kept']} of the image's, "
        f"torch {figures['torch']}{'' if torch_before else ' is new'}; {figures['seconds']} s"
    )
    return figures


def _manifests(inputs: Path, name: str) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(inputs):
        subfolders.sort()
        if len(Path(folder).relative_to(inputs).parts) >= _DEPTH:
            subfolders.clear()
        if name in files:
            yield Path(folder) / name


def _only(inputs: Path, name: str) -> Path | None:
    found = list(_manifests(inputs, name))
    if len(found) > 1:
        raise InstallError(f"{name} is in {', '.join(str(path.parent) for path in found)}; detach all but one")
    return found[0] if found else None


def _wheelhouse(inputs: Path) -> Path | None:
    """The manifest of the wheels that were gathered for this image, None where no wheels are attached."""
    found = list(_manifests(inputs, WHEELS))
    reasons = {path: _another_image(json.loads(path.read_text(encoding="utf-8"))) for path in found}
    serve = [path for path in found if not reasons[path]]
    if found and not serve:
        raise InstallError("; ".join(f"{path.parent}: {reason}" for path, reason in reasons.items()))
    if len(serve) > 1:
        raise InstallError(f"{WHEELS} is in {', '.join(str(path.parent) for path in serve)}; detach all but one")
    return serve[0] if serve else None


def _another_image(manifest: dict[str, Any]) -> str:
    """Why wheels do not go with this Python and its torch; empty where they do."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    remedy = "attach the wheels of this image's target, or keep the kernel on the image that they were made for"
    if manifest["python"] != here:
        return f"wheels for Python {manifest['python']}, and this is {here}; {remedy}"
    wanted = manifest["image"].get("torch")
    there = _version("torch")
    # An image may leave the CUDA version out of torch's: only what both say is compared.
    if wanted and (there is None or there.split("+")[0] != wanted.split("+")[0] or ("+" in there and "+" in wanted and there != wanted)):
        return f"wheels for torch {wanted}, and here is {there or 'none'}; {remedy}"
    return ""


def _lay_out(manifest: Path, scratch: Path) -> int:
    """Put links to a data set's wheels into a folder, under their own names; returns how many there are."""
    files = json.loads(manifest.read_text(encoding="utf-8"))["wheels"]
    missing = []
    for entry in files:
        stored = [manifest.parent / name for name in entry["stored"]]
        if sum(path.stat().st_size for path in stored if path.is_file()) != entry["size"]:
            missing.append(entry["file"])
        elif len(stored) == 1:
            (scratch / entry["file"]).symlink_to(stored[0])
        else:
            with (scratch / entry["file"]).open("wb") as whole:
                for path in stored:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, whole, 1 << 20)
    if missing:
        count = f" ({len(missing)} of {len(files)} files)" if len(missing) > 1 else ""
        raise InstallError(f"{manifest.parent}: {missing[0]} is not there, or not whole{count}; upload the data set again")
    return len(files)


def _pip(folder: Path, requirements: list[str], torch: str | None) -> str:
    """What pip says of installing from a folder alone, with torch held where it is."""
    asked, held = folder / "requirements.txt", folder / "constraints.txt"
    asked.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    held.write_text(f"torch=={torch}\n" if torch else "", encoding="utf-8")
    # Without --no-compile, pip compiles thousands of files that no run imports.
    options = ["--no-index", "--find-links", str(folder), "--no-compile", "--disable-pip-version-check", "--root-user-action", "ignore"]
    # A notebook's kernel sets FORCE_COLOR, with which an error's line begins with a colour.
    coloured = ("FORCE_COLOR", "CLICOLOR_FORCE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") and name not in coloured}
    process = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "-r", str(asked), "-c", str(held)],
        capture_output=True,
        text=True,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        check=False,
    )
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.startswith("ERROR:")]
        said = " ".join(lines[-1:] or process.stderr.splitlines()[-1:]).removeprefix("ERROR:").strip()
        raise InstallError(f"pip: {said}; the attached wheels do not suffice, attach those of arc-submit kaggle wheels")
    return process.stdout


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    install(Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle")) / "input")
