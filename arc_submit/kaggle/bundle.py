"""`arc-submit kaggle bundle`: makes a data set of the library as a wheel, the chosen models and adapters, and the targets' locks.

A model is put into models/NAME, adapters into adapters/NAME, a file that says how a model is asked into model_configs/NAME; the upload
sends folders as archives, which Kaggle unpacks. Files that must not be shipped are refused before anything is copied. Does not know a
model's architecture.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arc_submit.base_model.pocket import pocket_folder
from arc_submit.errors import ConfigError, DataError
from arc_submit.kaggle.dataset_folder import (
    StoredFile,
    check_total_size,
    read_manifest,
    refuse_foreign_files,
    write_manifest,
    write_metadata,
)
from arc_submit.kaggle.files import format_size, list_files, require_space, sha256_of
from arc_submit.kaggle.install import BUNDLE_MANIFEST, last_error, run_pip
from arc_submit.kaggle.push_record import commit_of
from arc_submit.kaggle.secret_scan import shipping_problems
from arc_submit.language.prompt_config import PromptConfig, read_prompt_config

_SOURCES = ("arc_submit", "pyproject.toml", "README.md", "LICENSE")
_FOLDERS = ("models", "adapters", "model_configs", "offline_wheels")
_REQUIREMENTS = "requirements.txt"  # a target reads it
# The weights that --search-proposals reads, in the checkout and in the wheel.
_WRITER, _WRITER_IN_WHEEL = "models/writer/model.safetensors", "arc_submit/programs/arc/writer.safetensors"
_TITLE = "arc submit bundle"


def make_bundle(
    out: Path,
    models: Sequence[Path] = (),
    adapters: Sequence[Path] = (),
    title: str = _TITLE,
    owner: str | None = None,
    model_configs: Sequence[Path] = (),
) -> dict[str, Any]:
    """Make a bundle's folder, in place of an older bundle there; returns the figures.

    Raises:
        ConfigError: if the sources are not a checkout, two folders have one name, or `out` holds other files.
        DataError: if something must not be shipped; each reason is printed on a line of its own before.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        raise ConfigError(f"{checkout}: no pyproject.toml; a bundle is made from a checkout of the project")
    places = _assign_places(models, adapters)
    configs = _read_model_configs(model_configs)
    wheels = [path.name for path in out.glob("arc_submit-*.whl")]
    refuse_foreign_files(out, [BUNDLE_MANIFEST, _REQUIREMENTS, *_FOLDERS, *wheels])
    with tempfile.TemporaryDirectory(prefix="arc-submit-bundle-") as scratch:
        sources = Path(scratch) / "sources"
        _copy_sources(checkout, sources)
        _refuse_unshippable(places, [*places.values(), sources, checkout / "offline_wheels"])
        size = sum((source / path).stat().st_size for source in places.values() for path in list_files(source))
        check_total_size(out, size)
        out.mkdir(parents=True, exist_ok=True)
        require_space(out, size)
        for name in [BUNDLE_MANIFEST, *wheels]:
            (out / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        wheel = _build_wheel(sources, out)
    for place, source in places.items():
        shutil.copytree(source, out / place)
    for config_name, config in configs.items():
        (out / "model_configs" / config_name).mkdir(parents=True)
        config.save(out / "model_configs" / config_name)
    shutil.copytree(checkout / "offline_wheels", out / "offline_wheels", ignore=shutil.ignore_patterns("README*"))
    shutil.copyfile(checkout / _REQUIREMENTS, out / _REQUIREMENTS)
    name = write_metadata(out, title, owner)
    version = wheel.name.split("-")[1]
    shipped = [path for path in list_files(out) if path.parts[0] in _FOLDERS]
    manifest = {
        "version": version,
        "commit": commit_of(checkout),
        "requirements": [f"arc_submit=={version}"],
        "wheels": [asdict(StoredFile(wheel.name, (wheel.name,), wheel.stat().st_size, sha256_of(wheel)))],
        "models": [place.name for place in places if place.parts[0] == "models"],
        "adapters": [place.name for place in places if place.parts[0] == "adapters"],
        "model_configs": sorted(configs),
        "files": [{"file": path.as_posix(), "size": (out / path).stat().st_size} for path in shipped],
    }
    write_manifest(out / BUNDLE_MANIFEST, manifest, "files")
    files = list_files(out)
    return {
        "dataset": name,
        "version": version,
        "wheel": wheel.name,
        "models": manifest["models"],
        "adapters": manifest["adapters"],
        "model_configs": manifest["model_configs"],
        "files": len(files),
        "bytes": sum((out / path).stat().st_size for path in files),
    }


def _assign_places(models: Sequence[Path], adapters: Sequence[Path]) -> dict[Path, Path]:
    """The folders to ship, by their places in the bundle."""
    places: dict[Path, Path] = {}
    for kind, option, folders in (("models", "--model", models), ("adapters", "--adapters", adapters)):
        for folder in folders:
            if not folder.is_dir():
                raise ConfigError(f"{option} {folder}: no such folder")
            place = Path(kind) / folder.resolve().name
            if place in places:
                raise ConfigError(f"{folder}: another folder of {option} has the name {place.name}; rename one")
            places[place] = folder
    return places


def _read_model_configs(files: Sequence[Path]) -> dict[str, PromptConfig]:
    """The prompt configurations to ship, by the names of their files."""
    configs: dict[str, PromptConfig] = {}
    for file in files:
        name, config = file.stem, read_prompt_config(Path(), file)
        if name in configs:
            raise ConfigError(f"{file}: another file of --model-config has the name {name}; rename one")
        assert config is not None
        config.version()  # a prompt file that cannot work is refused here, not on Kaggle
        configs[name] = config
    return configs


def _refuse_unshippable(places: dict[Path, Path], folders: Sequence[Path]) -> None:
    """Print every reason why a folder must not be shipped, or why a model or adapter is incomplete, and raise if there is one."""
    problems = [line for folder in folders for line in shipping_problems(folder)]
    for place, folder in places.items():
        names = {path.name for path in list_files(folder)}
        if not any(name.endswith(".safetensors") for name in names):
            problems.append(f"{folder}: no .safetensors in it; give the folder that holds the weights")
        required = {"config.json", "tokenizer.json"} if place.parts[0] == "models" else {"adapter_config.json"}
        problems += [f"{folder}: no {name} in it; save it with the weights" for name in sorted(required - names)]
    for line in problems:
        print(line, file=sys.stderr)
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise DataError(f"nothing was bundled: {count}, each in a line above, the first: {problems[0]}")


def _copy_sources(checkout: Path, folder: Path) -> None:
    """Copy the library's sources: a build in the checkout would include files of its older build folder."""
    folder.mkdir(parents=True)
    for name in _SOURCES:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source, folder / name)
    shutil.copyfile(checkout / _WRITER, folder / _WRITER_IN_WHEEL)


def _build_wheel(sources: Path, out: Path) -> Path:
    """Build the library's wheel without a network; DataError holds pip's error."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(out)]
    process = run_pip([sys.executable, "-m", "pip", "wheel", *options, str(sources)], offline=True)
    if process.returncode:
        raise DataError(f"the library's wheel was not built: {last_error(process.stderr)}; is setuptools 77 or newer installed?")
    return next(out.glob("arc_submit-*.whl"))


def read_bundle(folder: Path) -> dict[str, Any]:
    """The manifest of a finished bundle; DataError if there is none."""
    command = f"arc-submit kaggle bundle --out {folder}"
    return read_manifest(folder / BUNDLE_MANIFEST, f"no finished bundle there; make it with {command}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the data set's folder; an older bundle there is replaced")
    add("--model", type=Path, action="append", dest="models", metavar="FOLDER", help="a model to ship (default: the pocket model)")
    add("--no-model", action="store_true", help="ship no model")
    add("--adapters", type=Path, action="append", metavar="FOLDER", help="adapters in PEFT format to ship")
    add("--model-config", type=Path, action="append", dest="model_configs", metavar="FILE", help="how a model is asked, to ship")
    add("--title", default=_TITLE, help="of the data set (default: %(default)s)")
    add("--owner", help="Kaggle user name (default: KAGGLE_USERNAME)")


def main(args: argparse.Namespace) -> dict[str, Any]:
    if args.models and args.no_model:
        raise ConfigError("--model and --no-model: give one of them")
    models = args.models or ([] if args.no_model else [pocket_folder()])
    figures = make_bundle(args.out, models, args.adapters or (), args.title, args.owner, args.model_configs or ())
    shipped = ", ".join(f"{kind}/{name}" for kind in ("models", "adapters", "model_configs") for name in figures[kind])
    print(f"{args.out}: {figures['wheel']} with {shipped or 'no model'}; {figures['files']} files, {format_size(figures['bytes'])}")
    print(f"data set {figures['dataset']}: upload with arc-submit kaggle upload {args.out}")
    return figures
