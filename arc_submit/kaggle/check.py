"""`arc-submit kaggle check`: checks a kernel's metadata and notebook for what Kaggle refuses, ignores or silently does differently."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.findings import Finding, add_ignore_option, raise_on_errors, read_json_object
from arc_submit.kaggle.given_values import given_values
from arc_submit.kaggle.kernel_metadata import ACCELERATORS, KERNEL_METADATA, SOURCES, check_metadata, read_switch, requested_machine
from arc_submit.kaggle.notebook_check import check_notebook, imports_library, makes_submission, source_of
from arc_submit.kaggle.parameter_check import check_values
from arc_submit.kaggle.quota import Session, check_account
from arc_submit.run.auto_inputs import AUTO
from arc_submit.run.definitions import read_source, split_definitions
from arc_submit.run.presets import PRESETS

SESSION = "11h55m"  # Kaggle ends a session after 12 hours, and a limit must be lower
_ENDING = 600.0  # seconds between a run's own end and the session's
_NO_RUN, _SHORT = 60.0, 3600.0  # seconds; a re-run's budget below the first is a slip, below the second may be one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help=f"folder with {KERNEL_METADATA} (default: this one)")
    parser.add_argument("--accelerator", help="replaces machine_shape of the metadata")
    parser.add_argument("--session", metavar="TIME", help=f"time limit of the session, and what it costs (default: {SESSION})")
    add_ignore_option(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    figures = check_push(args, "the kernel is not ready to push")
    print(f"{args.folder / KERNEL_METADATA}: ready to push, {figures['warnings']} warnings")
    return figures


def check_push(args: argparse.Namespace, consequence: str) -> dict[str, Any]:
    """Print what is found about a kernel and the account's hours; returns the figures, and raises ConfigError if there is an error."""
    findings = check_kernel(args.folder, args.accelerator, args.session or SESSION)
    raise_on_errors(findings, consequence, args.ignore)
    lines, more, account = check_account(_session_of(args.folder, args.accelerator, args.session))
    print("\n".join(lines))
    return {**raise_on_errors(more, consequence, args.ignore, findings), **account}


def _session_of(folder: Path, accelerator: str | None, session: str | None) -> Session:
    """What a push begins. A notebook's own budget tells how long it takes, unless the command line does."""
    metadata, _ = read_json_object(folder / KERNEL_METADATA)
    gpu = read_switch(metadata, "enable_gpu", False)
    machine = accelerator or requested_machine(metadata) or ("NvidiaTeslaP100" if gpu else "")
    limit = parse_duration(session or SESSION)
    expected = []
    for budget in () if session else given_values(_code_of(folder, metadata), "budget"):
        with contextlib.suppress(ConfigError):  # found by the check, and ignored
            expected.append(parse_duration(budget) + _ENDING)
    return Session(str(machine), limit, min(limit, max(expected, default=limit)))


def _code_of(folder: Path, metadata: dict[str, Any]) -> list[str]:
    """The sources of the code cells of a kernel's notebook; none where it cannot be read."""
    notebook, _ = read_json_object(folder / str(metadata.get("code_file", "")))
    return [source_of(cell) for cell in notebook.get("cells", ()) if cell.get("cell_type") == "code"]


def check_kernel(folder: Path, accelerator: str | None = None, session: str = SESSION) -> list[Finding]:
    """All findings about the kernel in a folder.

    Args:
        folder: holds kernel-metadata.json.
        accelerator: replaces machine_shape.
        session: time limit of the session, as --session takes it.
    """
    metadata, findings = check_metadata(folder, accelerator)
    if not metadata:
        return findings
    code_file = metadata.get("code_file")
    if not isinstance(code_file, str) or not code_file:
        return [*findings, Finding("error", KERNEL_METADATA, "code_file", "is missing", "name the notebook, relative to this file")]
    if not _is_file(folder / code_file):
        remedy = f"give its path relative to {folder.resolve()}"
        return [*findings, Finding("error", KERNEL_METADATA, "code_file", f"{code_file}: no such file", remedy)]
    internet = bool(read_switch(metadata, "enable_internet", True))
    notebook, notebook_findings = check_notebook(folder / code_file, internet)
    findings += notebook_findings
    cells = notebook.get("cells", [])
    if imports_library(cells) and not any(metadata.get(name) for name in SOURCES if name != "competition_sources"):
        problem = "no data set, notebook or model is attached, so arc_submit is not installed on Kaggle"
        remedy = "attach the wheels and the bundle (arc-submit kaggle wheels, bundle, upload)"
        findings.append(Finding("warning" if internet else "error", KERNEL_METADATA, "dataset_sources", problem, remedy))
    code, file = [source_of(cell) for cell in cells if cell.get("cell_type") == "code"], Path(code_file).name
    findings += _check_session(code, session, file)
    findings += check_values(file, notebook, [finding.place for finding in findings])
    findings += _check_competition(code, metadata, internet)
    findings += _check_named_models(code, metadata, file)
    for preset in (*given_values(code, "preset"), *_of_sources(code, "preset")):
        if preset not in (*PRESETS, AUTO):
            remedy = f"choose from {', '.join((*PRESETS, AUTO))}"
            findings.append(Finding("error", file, "preset", f"there is no preset {preset!r}", remedy))
            continue
        of_preset = [*_check_model(str(preset), metadata), *_check_gpus(str(preset), metadata, accelerator, file)]
        stronger = {finding.place for finding in of_preset} & {"machine_shape", "enable_gpu"}  # they say what the preset needs
        findings = [finding for finding in findings if finding.place not in stronger]
        findings += of_preset
    return findings


def _is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _check_competition(code: list[str], metadata: dict[str, Any], internet: bool) -> Iterator[Finding]:
    """A kernel that is to be submitted names its competition; those that check a GPU or collect wheels need none."""
    ours = any(re.search(r"\barc_submit\.", one) for one in code)
    if metadata.get("competition_sources") or (ours and not makes_submission(code)):
        return
    problem = "is empty: there is no test file, and the notebook cannot be submitted"
    remedy = "name the competition, as in its address, such as arc-prize-2026-arc-agi-2"
    yield Finding("error" if ours or not internet else "warning", KERNEL_METADATA, "competition_sources", problem, remedy)


def _check_model(preset: str, metadata: dict[str, Any]) -> Iterator[Finding]:
    """Whether something is attached that can hold the base model of a preset."""
    if preset != "cpu-pocket" and not _holders(metadata):
        problem = f"{preset} needs a base model, and no data set or model that could hold one is attached"
        yield Finding("error", KERNEL_METADATA, "model_sources", problem, "attach the model, or the bundle that holds it")


def _of_sources(code: list[str], option: str) -> list[str]:
    """The values of an option in the sources that a notebook gives with names of their own."""
    found = []
    for text in (part for given in given_values(code, "source") for part in split_definitions(str(given))):
        with contextlib.suppress(ConfigError):  # the variable may be something else, and a run refuses what is malformed
            found += [str(value) for name, value in read_source(text).options.items() if name == option]
    return found


def _check_named_models(code: list[str], metadata: dict[str, Any], file: str) -> Iterator[Finding]:
    """Whether a source can hold each model and adapter that the notebook names: a data set and a notebook's output can hold any."""
    holders = _holders(metadata)
    models = [source for source in holders if source in (metadata.get("model_sources") or ())]
    for place in ("model", "base_adapter", "adapters", "judge_model", "judge_adapters"):
        for name in (*map(str, given_values(code, place)), *_of_sources(code, place)):
            mount = re.match(r"/kaggle/input/(.*)", name)
            if name.startswith("/") and not mount:
                continue  # a folder of the image, or one that the notebook makes
            parts = Path(mount[1] if mount else name).parts
            if mount and any(_slug_of_source(source) in parts for source in holders):
                continue
            # A name is the end of a folder's path, and the folder of an attached model ends with these parts.
            if not mount and (len(models) < len(holders) or any(source.split("/")[-len(parts) :] == list(parts) for source in models)):
                continue
            held = f"; attached is {', '.join(holders)}" if holders else ""
            problem = f"{name!r} is in no data set, model or notebook that kernel-metadata.json attaches{held}"
            last = "/".join(models[0].split("/")[1:]) if models and place in ("model", "judge_model") else ""
            remedy = f"write {last!r}, or attach its source" if last else "attach its source, in dataset_sources or model_sources"
            yield Finding("error", file, place, problem, remedy)


def _holders(metadata: dict[str, Any]) -> list[str]:
    """The sources that can hold a model: all but the competition and the data set of wheels."""
    lists = [metadata.get(name) for name in SOURCES if name != "competition_sources"]
    sources = [str(source) for one in lists if isinstance(one, list) for source in one]
    return [source for source in sources if not re.search(r"/arc-submit-wheels\b", source)]


def _slug_of_source(source: str) -> str:
    """The part of a source's name that its mount has in both layouts: a data set's or notebook's slug, a model's name."""
    return source.split("/")[1] if "/" in source else source


def _check_gpus(preset: str, metadata: dict[str, Any], accelerator: str | None, file: str) -> Iterator[Finding]:
    """Compare the GPUs of the notebook's preset with those of the kernel."""
    shape = accelerator or requested_machine(metadata)
    # auto takes what is there, and one GPU is the least.
    needed = 1 if preset == AUTO else sum(device.startswith("cuda") for device in PRESETS[preset].get("devices", ()))
    if not needed:
        return
    if not shape and read_switch(metadata, "enable_gpu", False):
        problem = f"is missing, so Kaggle gives a P100, for which torch has no code; {preset} needs {_gpus(needed)} that work"
        matching = [name for name, count in ACCELERATORS.items() if count == needed or preset == AUTO]
        yield Finding("error", KERNEL_METADATA, "machine_shape", problem, f"write one of {', '.join(matching or ACCELERATORS)}")
        return
    if shape and not accelerator and read_switch(metadata, "enable_gpu", False) is False:
        problem = f"is off while machine_shape is {shape}, and {preset} needs {_gpus(needed)}"
        yield Finding("error", KERNEL_METADATA, "enable_gpu", problem, "write true")
    available = ACCELERATORS.get(shape, needed) if shape else 0
    if available < needed:
        problem = f"{preset} needs {_gpus(needed)}, and {shape or 'a machine without a GPU'}, which is requested, has {available}"
        yield Finding("error", file, "preset", problem, "choose another preset, or the machine_shape that it is made for")
    elif available > needed and preset != AUTO:
        problem = f"{preset} uses {needed} GPUs and leaves {available - needed} of {shape} idle"
        yield Finding("warning", file, "preset", problem, "choose a preset for that machine")


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"


def _check_session(code: list[str], session: str, file: str) -> Iterator[Finding]:
    """Compare the notebook's budgets with the session's time limit."""
    try:
        limit = parse_duration(session)
    except ConfigError as error:
        yield Finding("error", "command line", "--session", str(error), f"write {SESSION}")
        return
    if limit >= 12 * 3600:
        problem = f"{session} is not below the 12 hours after which Kaggle ends every session"
        yield Finding("error", "command line", "--session", problem, f"write {SESSION} or less")
    for name, value in [(one, value) for one in ("rerun_budget", "budget") for value in given_values(code, one)]:
        try:
            budget = parse_duration(value)
        except ConfigError as error:
            yield Finding("error", file, name, str(error), 'write "11h30m"')
            continue
        if name == "rerun_budget" and budget < _SHORT:
            problem = f"{value} is {format_duration(budget)}, and a re-run has {session}; a number alone is of seconds"
            yield Finding("error" if budget < _NO_RUN else "warning", file, name, problem, 'write "11h30m"')
        if budget + _ENDING > limit:
            problem = f"{value} leaves less than {format_duration(_ENDING)} of the session's {session} after the run"
            yield Finding("error", file, name, problem, "lower it, or raise --session")
