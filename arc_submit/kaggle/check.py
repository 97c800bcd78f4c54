"""`arc-submit kaggle check`: a kernel's metadata and notebook against what Kaggle would refuse, ignore or do otherwise in silence."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from arc_submit.durations import format_duration, parse_duration
from arc_submit.errors import ConfigError
from arc_submit.kaggle.findings import Finding, add_despite, refuse_errors
from arc_submit.kaggle.metadata import GPUS, METADATA, SOURCES, asked_machine, check_metadata
from arc_submit.run.config import PRESETS

SESSION = "11h55m"  # Kaggle ends a session after 12 hours, and a limit must be lower
_ENDING = 600.0  # seconds between a run's own end and the session's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_kernel_options(parser)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of the findings")


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """The options of check and push alike."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help=f"folder that holds {METADATA} (default: this one)")
    parser.add_argument("--accelerator", help="in place of the metadata's machine_shape")
    parser.add_argument("--session", default=SESSION, metavar="TIME", help="limit of the session's run (default: %(default)s)")
    add_despite(parser)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """`arc-submit kaggle check`; returns its figures."""
    figures = refuse_errors(check_kernel(args.folder, args.accelerator, args.session), "the kernel is not fit to be pushed", args.despite)
    print(f"{args.folder / METADATA}: fit to be pushed, {figures['warnings']} warnings")
    return figures


def check_kernel(folder: Path, accelerator: str | None = None, session: str = SESSION) -> list[Finding]:
    """All findings about the kernel that a folder's metadata describe.

    Args:
        folder: holds kernel-metadata.json.
        accelerator: what is given in place of machine_shape.
        session: limit of the session, as --session takes it.
    """
    from arc_submit.kaggle.cells import imports_library, source_of
    from arc_submit.kaggle.notebook_check import check_notebook

    metadata, findings = check_metadata(folder, accelerator)
    if not metadata:
        return findings
    code_file = metadata.get("code_file")
    if not isinstance(code_file, str) or not code_file:
        return [*findings, Finding("error", METADATA, "code_file", "is missing", "name the notebook, relative to this file")]
    if not (folder / code_file).is_file():
        remedy = f"it is looked for from {folder.resolve()} on"
        return [*findings, Finding("error", METADATA, "code_file", f"{code_file}: no such file", remedy)]
    internet = metadata.get("enable_internet") not in (False, "false", "False")
    notebook, more = check_notebook(folder / code_file, internet)
    findings += more
    if imports_library(notebook.get("cells", [])) and not any(metadata.get(name) for name in SOURCES if name != "competition_sources"):
        problem = "no data set, notebook or model is attached, and nothing else brings arc_submit onto Kaggle's machine"
        remedy = "attach the wheels and the bundle (arc-submit kaggle wheels, bundle, upload)"
        findings.append(Finding("warning" if internet else "error", METADATA, "dataset_sources", problem, remedy))
    text = "\n".join(source_of(cell) for cell in notebook.get("cells", ()))
    file = (folder / code_file).name
    return [*findings, *_session(text, session, file), *_devices(text, metadata, accelerator, file)]


def _devices(text: str, metadata: dict[str, Any], accelerator: str | None, file: str) -> list[Finding]:
    """Whether the kernel asks for the GPUs that the notebook's preset works on."""
    found = re.search(r"^preset = [\"']([^\"']+)[\"']", text, re.MULTILINE)
    if not found:
        return []
    preset = found[1]
    if preset not in PRESETS:
        return [Finding("error", file, "preset", f"there is no {preset!r}", f"choose from {', '.join(PRESETS)}")]
    wanted = sum(device.startswith("cuda") for device in PRESETS[preset].get("devices", ()))
    if not wanted:
        return []
    shape = accelerator or asked_machine(metadata)
    if not shape and metadata.get("enable_gpu") in (True, "true", "True"):
        return []  # check_metadata says already that Kaggle chooses
    there = GPUS.get(shape, wanted) if shape else 0
    if there < wanted:
        problem = f"{preset} works on {wanted} GPUs, and {shape or 'a machine without any'} is asked for, which has {there}"
        return [Finding("error", file, "preset", problem, "choose another preset, or the machine_shape that it is made for")]
    if there > wanted:
        problem = f"{preset} works on {wanted} GPUs and leaves {there - wanted} of {shape} idle"
        return [Finding("warning", file, "preset", problem, "choose a preset for that machine")]
    return []


def _session(text: str, session: str, file: str) -> list[Finding]:
    """Whether the session lasts as long as the notebook's own budget for a re-run."""
    try:
        limit = parse_duration(session)
    except ConfigError as error:
        return [Finding("error", "command line", "--session", str(error), "write 11h55m")]
    findings = []
    if limit >= 12 * 3600:
        problem = f"{session} is not below the 12 hours after which Kaggle ends every session"
        findings.append(Finding("error", "command line", "--session", problem, f"write {SESSION} or less"))
    for name, given in re.findall(r"^(rerun_budget|budget) = [\"']([^\"']+)[\"']", text, re.MULTILINE):
        try:
            budget = parse_duration(given)
        except ConfigError as error:
            findings.append(Finding("error", file, name, str(error), 'write "11h30m"'))
            continue
        if budget + _ENDING > limit:
            problem = f"{given} leaves less than {format_duration(_ENDING)} of the session's {session} to end in"
            findings.append(Finding("error", file, name, problem, "lower it, or raise --session"))
    return findings
