"""pip as a command, asked to act for another machine: resolve, download exactly what a lock names, prove that a set installs offline.

Where packages come from is what pip is configured to; nothing here names an index. Knows nothing about Kaggle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.dependencies import Distribution
from arc_submit.kaggle.targets import LockedWheel, Target

# pip judges markers by the Python it runs on; told the target's version where it asks for its own, it judges them by that.
_AS_TARGET = (
    "import platform, runpy, sys\n"
    "version = sys.argv.pop(1)\n"
    "platform.python_version = lambda: version\n"
    "platform.python_version_tuple = lambda: tuple(version.split('.'))\n"
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)\n"
)


@dataclass(frozen=True)
class Resolved:
    """A package that pip would install: what it is, its file, and the sha256 that the index gives for it."""

    distribution: Distribution
    file: str
    sha256: str


def resolve(target: Target, requirements: Iterable[str]) -> list[Resolved]:
    """What pip's resolver takes for a target, as if nothing were installed there yet.

    Raises:
        ConfigError: on another system than Linux on x86-64, whose own name markers would see.
        DataError: where pip finds no answer.
    """
    if not on_linux():
        raise ConfigError("a lock is made on Linux on x86-64: pip judges markers such as sys_platform by the machine it runs on")
    return _report(target, [*requirements], [])


def on_linux() -> bool:
    """Whether this machine is what every target is: Linux on x86-64."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"


def resolve_offline(target: Target, requirements: Iterable[str], folders: Sequence[Path]) -> list[Resolved]:
    """The same from the wheels in some folders alone, with no index and no configuration.

    Raises:
        DataError: where they do not suffice.
    """
    find = [part for folder in folders for part in ("--find-links", str(folder))]
    return _report(target, [*requirements], ["--no-index", *find], offline=True)


def download(target: Target, wheels: Iterable[LockedWheel], folder: Path) -> None:
    """Download exactly these wheels; pip compares each with its sha256.

    Raises:
        DataError: where one is not to be had, or is another file than the lock's.
    """
    lines = "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
    asked = folder / "asked.txt"
    folder.mkdir(parents=True, exist_ok=True)
    asked.write_text(lines, encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--no-cache-dir", "--progress-bar", "off", "--dest", str(folder), "-r", str(asked)]
    try:
        _run(target, ["download", *_for(target), *options])
    finally:
        asked.unlink(missing_ok=True)


def _report(target: Target, requirements: list[str], options: list[str], offline: bool = False) -> list[Resolved]:
    # --target: pip asks for it with another platform. Nothing is written there in a dry run.
    given = ["install", "--dry-run", "--ignore-installed", "--no-cache-dir", "--quiet", "--report", "-", "--target", "nowhere"]
    output = _run(target, [*given, *_for(target), *options, *requirements], offline)
    resolved = []
    for entry in json.loads(output[output.index("{") :])["install"]:
        metadata, source = entry["metadata"], entry["download_info"]
        distribution = Distribution(metadata["name"], metadata["version"], tuple(metadata.get("requires_dist", ())))
        sha256 = source["archive_info"].get("hashes", {}).get("sha256", "")
        resolved.append(Resolved(distribution, _file_name(source["url"]), sha256))
    return sorted(resolved, key=lambda package: package.distribution.name.lower())


def _for(target: Target) -> list[str]:
    platforms = [part for tag in target.platforms() for part in ("--platform", tag)]
    return ["--only-binary=:all:", "--python-version", target.python_minor, "--implementation", "cp", *platforms]


def _run(target: Target, arguments: list[str], offline: bool = False) -> str:
    """Standard output of a pip command.

    Raises:
        DataError: with pip's own last error.
    """
    # A notebook's kernel sets FORCE_COLOR, with which pip colours even the report that is to be read here.
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    environment = {**kept, "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    if offline:
        environment = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
    process = subprocess.run(
        [sys.executable, "-c", _AS_TARGET, target.python, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if process.returncode:
        raise DataError(f"target {target.name}: pip {arguments[0]}: {last_error(process.stderr)}")
    return process.stdout


def last_error(text: str) -> str:
    """What pip says is wrong: its last line that begins with ERROR, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it failed without a word"])[-1].removeprefix("ERROR:").strip()


def _file_name(address: str) -> str:
    return address.split("#")[0].rsplit("/", 1)[1].replace("%2B", "+").replace("%2b", "+")
