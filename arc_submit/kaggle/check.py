"""`arc-submit kaggle check`: checks a kernel's metadata and notebook for what Kaggle refuses, ignores or silently does differently."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.findings import Finding, add_ignore_option, raise_on_errors
from arc_submit.kaggle.given_values import given_values
from arc_submit.kaggle.kernel_metadata import ACCELERATORS, KERNEL_METADATA, SOURCES, check_metadata, read_switch, requested_machine
from arc_submit.kaggle.notebook_check import check_notebook, imports_library, source_of
from arc_submit.run.auto_inputs import AUTO
from arc_submit.run.presets import PRESETS

SESSION = "11h55m"  # Kaggle ends a session after 12 hours, and a limit must be lower
_ENDING = 600.0  # seconds between a run's own end and the session's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help=f"folder with {KERNEL_METADATA} (default: this one)")
    parser.add_argument("--accelerator", help="replaces machine_shape of the metadata")
    parser.add_argument("--session", default=SESSION, metavar="TIME", help="time limit of the session (default: %(default)s)")
    add_ignore_option(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    findings = check_kernel(args.folder, args.accelerator, args.session)
    figures = raise_on_errors(findings, "the kernel is not ready to push", args.ignore)
    print(f"{args.folder / KERNEL_METADATA}: ready to push, {figures['warnings']} warnings")
    return figures


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
    if not (folder / code_file).is_file():
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
    for preset in given_values(code, "preset"):
        if preset not in (*PRESETS, AUTO):
            remedy = f"choose from {', '.join((*PRESETS, AUTO))}"
            findings.append(Finding("error", file, "preset", f"there is no preset {preset!r}", remedy))
            continue
        findings += [*_check_model(str(preset), metadata), *_check_gpus(str(preset), metadata, accelerator, file)]
    # A preset makes an error of a missing machine_shape, which the metadata alone warn of.
    errors = [finding for finding in findings if finding.severity == "error"]
    superseded = "machine_shape" if any(finding.place == "machine_shape" for finding in errors) else None
    return [finding for finding in findings if finding in errors or finding.place != superseded]


def _check_model(preset: str, metadata: dict[str, Any]) -> Iterator[Finding]:
    """Whether something is attached that can hold the base model of a preset."""
    sources = [str(source) for name in SOURCES if name != "competition_sources" for source in metadata.get(name) or ()]
    if preset != "cpu-pocket" and all(re.search(r"/arc-submit-wheels\b", source) for source in sources):
        problem = f"{preset} needs a base model, and no data set or model that could hold one is attached"
        yield Finding("error", KERNEL_METADATA, "model_sources", problem, "attach the model, or the bundle that holds it")


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
        if budget + _ENDING > limit:
            problem = f"{value} leaves less than {format_duration(_ENDING)} of the session's {session} after the run"
            yield Finding("error", file, name, problem, "lower it, or raise --session")
