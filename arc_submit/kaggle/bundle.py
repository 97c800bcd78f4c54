"""`arc-submit kaggle bundle`: a data set of the library as a wheel, with the chosen models and adapters and the targets' locks.

A model lies in models/NAME, adapters in adapters/NAME; the upload sends folders as archives, which Kaggle unpacks. What may not be shipped
is refused before anything is copied. Knows nothing about what a model computes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.dataset_folder import (
    StoredFile,
    as_rows,
    check_total,
    read_manifest,
    refuse_foreign,
    write_installer,
    write_metadata,
    write_text,
)
from arc_submit.kaggle.files import format_size, list_files, sha256_of
from arc_submit.kaggle.install import BUNDLE
from arc_submit.kaggle.pip import last_error
from arc_submit.kaggle.secret_scan import shipping_problems
from arc_submit.kaggle.targets import targets_folder

_SOURCES = ("arc_submit", "pyproject.toml", "README.md", "LICENSE")
_FOLDERS = ("models", "adapters", "offline_wheels")
_REQUIREMENTS = "requirements.txt"  # which a target reads


def make_bundle(
    out: Path,
    models: Sequence[Path] = (),
    adapters: Sequence[Path] = (),
    title: str = "arc submit bundle",
    owner: str | None = None,
    checkout: Path | None = None,
) -> dict[str, Any]:
    """Make a bundle's folder, afresh; returns the figures.

    Raises:
        ConfigError: where the sources are not a checkout, two folders have one name, or `out` holds something else.
        DataError: where something may not be shipped, with every reason in a line of its own printed before.
    """
    checkout = checkout or Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        raise ConfigError(f"{checkout}: no pyproject.toml; a bundle is made from a checkout of the project")
    chosen = _choose(models, adapters)
    refuse_foreign(out, [BUNDLE, _REQUIREMENTS, *_FOLDERS, *(path.name for path in out.glob("arc_submit-*.whl"))])
    with tempfile.TemporaryDirectory(prefix="arc-submit-bundle-") as scratch:
        sources = _copy_sources(checkout, Path(scratch) / "sources")
        _refuse([*(source for source, _ in chosen), sources, checkout / "offline_wheels"], chosen)
        sizes = [(str(path), (source / path).stat().st_size) for source, _ in chosen for path in list_files(source)]
        total = check_total(out, sizes)
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        if total > 0.95 * free:
            raise DataError(f"{out}: {format_size(total)} are to be copied and {format_size(free)} are free; choose another --out")
        for path in [*out.glob("arc_submit-*.whl"), out / BUNDLE]:
            path.unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        wheel = _build(sources, out)
    for source, place in chosen:
        shutil.copytree(source, out / place)
    shutil.copytree(checkout / "offline_wheels", out / "offline_wheels", ignore=shutil.ignore_patterns("README*"))
    shutil.copyfile(checkout / _REQUIREMENTS, out / _REQUIREMENTS)
    write_installer(out)
    name = write_metadata(out, title, owner)
    version = wheel.name.split("-")[1]
    shipped = [path for path in list_files(out) if path.parts[0] in _FOLDERS]
    manifest = {
        "version": version,
        "requirements": [f"arc_submit=={version}"],
        "wheels": [asdict(StoredFile(wheel.name, (wheel.name,), wheel.stat().st_size, sha256_of(wheel)))],
        "models": [place.name for _, place in chosen if place.parts[0] == "models"],
        "adapters": [place.name for _, place in chosen if place.parts[0] == "adapters"],
        "files": [{"file": path.as_posix(), "size": (out / path).stat().st_size} for path in shipped],
    }
    write_text(out / BUNDLE, as_rows(manifest, "files"))
    return {
        "dataset": name,
        "version": version,
        "wheel": wheel.name,
        "models": manifest["models"],
        "adapters": manifest["adapters"],
        "files": len(list_files(out)),
        "bytes": sum((out / path).stat().st_size for path in list_files(out)),
    }


def _choose(models: Sequence[Path], adapters: Sequence[Path]) -> list[tuple[Path, Path]]:
    """The chosen folders with the places they get in the bundle."""
    chosen: list[tuple[Path, Path]] = []
    for kind, folders in (("models", models), ("adapters", adapters)):
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"--{kind.rstrip('s') if kind == 'models' else kind} {folder}: no such folder")
            place = Path(kind) / folder.resolve().name
            if place in (other for _, other in chosen):
                raise ConfigError(f"{folder}: another of the {kind} is called {place.name} too; rename one")
            chosen.append((folder, place))
    return chosen


def _refuse(folders: Sequence[Path], chosen: Sequence[tuple[Path, Path]]) -> None:
    lines = [line for folder in folders for line in shipping_problems(folder)]
    for folder, place in chosen:
        names = {path.name for path in list_files(folder)}
        weights = any(name.endswith(".safetensors") for name in names)
        needed = {"config.json", "tokenizer.json"} if place.parts[0] == "models" else {"adapter_config.json"}
        if not weights:
            lines.append(f"{folder}: no .safetensors in it; give the folder that holds the weights")
        lines += [f"{folder}: no {name} in it; save it with the weights" for name in sorted(needed - names)]
    for line in lines:
        print(line, file=sys.stderr)
    if lines:
        raise DataError(f"nothing was bundled: {len(lines)} refusal{'s' * (len(lines) > 1)}, each in a line above, the first: {lines[0]}")


def _copy_sources(checkout: Path, folder: Path) -> Path:
    """The library's sources alone: a build in the checkout would take up what an older one left in its build folder."""
    folder.mkdir(parents=True)
    for name in _SOURCES:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source, folder / name)
    return folder


def _build(sources: Path, out: Path) -> Path:
    """The library's wheel, built without a network.

    Raises:
        DataError: with pip's own error.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    process = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(out), str(sources)],
        capture_output=True,
        text=True,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        check=False,
    )
    if process.returncode:
        raise DataError(f"the library's wheel was not built: {last_error(process.stderr)}; is setuptools 77 or newer installed?")
    return next(out.glob("arc_submit-*.whl"))


def read_bundle(folder: Path) -> dict[str, Any]:
    """The manifest of a finished bundle.

    Raises:
        DataError: where there is none.
    """
    return read_manifest(folder / BUNDLE, f"no finished bundle there; make it with arc-submit kaggle bundle --out {folder}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the data set's folder; an older bundle there is replaced")
    add("--model", type=Path, action="append", dest="models", metavar="FOLDER", help="a model to ship (default: the pocket model)")
    add("--no-model", action="store_true", help="ship none")
    add("--adapters", type=Path, action="append", metavar="FOLDER", help="adapters in PEFT format to ship")
    add("--title", default="arc submit bundle", help="of the data set (default: %(default)s)")
    add("--owner", help="Kaggle user name (default: KAGGLE_USERNAME)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    if args.models and args.no_model:
        raise ConfigError("--model and --no-model: give one of them")
    models = args.models or ([] if args.no_model else [targets_folder().parent / "models" / "pocket"])
    figures = make_bundle(args.out, models, args.adapters or (), args.title, args.owner)
    shipped = ", ".join([*(f"models/{name}" for name in figures["models"]), *(f"adapters/{name}" for name in figures["adapters"])])
    print(f"{args.out}: {figures['wheel']} with {shipped or 'no model'}; {figures['files']} files, {format_size(figures['bytes'])}")
    print(f"data set {figures['dataset']}: upload with arc-submit kaggle upload {args.out}")
    return figures
