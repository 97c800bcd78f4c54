"""kernel-metadata.json: everything in it that the kaggle client or the server would refuse, ignore or read otherwise than it was meant.

The client's own rules are those of kaggle 2.2.4 (KaggleApi.kernels_push); tests/test_kaggle_client.py holds them against that client.
Knows nothing about the notebook's content.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.kaggle.findings import Finding, read_object, unknown_fields

METADATA = "kernel-metadata.json"
FIELDS = (
    "id",
    "id_no",
    "title",
    "code_file",
    "language",
    "kernel_type",
    "is_private",
    "enable_gpu",
    "enable_tpu",
    "enable_internet",
    "machine_shape",
    "dataset_sources",
    "competition_sources",
    "kernel_sources",
    "model_sources",
    "keywords",
    "docker_image",
    "docker_image_pinning_type",
)
SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")

# Kaggle's documentation of its client, February and September 2026.
ACCELERATORS = {
    "NvidiaTeslaT4": "2x T4, 14.6 GiB each; Kaggle's default GPU",
    "NvidiaL4": "4x L4, 22.3 GiB each, in ARC Prize competitions",
    "NvidiaL4X1": "1x L4, 22.3 GiB",
    "NvidiaTeslaA100": "A100, where a competition offers it",
    "NvidiaH100": "H100, where a competition offers it",
    "NvidiaRtxPro6000": "RTX Pro 6000, where a competition offers it",
}
GPUS = {"NvidiaTeslaT4": 2, "NvidiaL4": 4, **dict.fromkeys(("NvidiaL4X1", "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000"), 1)}
# What somebody would write who means the track of 2026 with tasks in files.
_NOT_THE_COMPETITION = {
    "arc-prize-2026": "is no competition",
    "arc-prize-2026-arc-agi-3": "is of games, and has no file of tasks",
    "arc-prize-2026-paper-track": "is of papers, and has no file of tasks",
}
REFUSED_ACCELERATORS = {
    "NvidiaTeslaP100": "is retired, and torch has no code for its sm_60",
    "NvidiaTeslaT4Highmem": "is for Kaggle's administrators; NvidiaTeslaT4 already is two T4",
    **dict.fromkeys(("TpuV38", "Tpu1VmV38", "TpuV5E8", "TpuV6E8"), "is a TPU, and nothing here runs on one"),
}


def check_metadata(folder: Path, accelerator: str | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a folder's kernel-metadata.json; returns its value and the findings.

    Args:
        accelerator: what the command line says in place of machine_shape.
    """
    value, findings = read_object(folder / METADATA)
    if findings and not value:
        return value, findings
    findings += unknown_fields(METADATA, value, FIELDS)
    for part in (_names, _kind, _switches, _sources, _image):
        findings += part(value)
    findings += _machine(value, accelerator)
    return value, findings


def kernel_name(folder: Path) -> str:
    """owner/slug of a folder's kernel.

    Raises:
        ConfigError: where its metadata do not say.
    """
    value, findings = read_object(folder / METADATA)
    name = value.get("id")
    if not isinstance(name, str) or name.count("/") != 1:
        raise ConfigError(
            f"{folder / METADATA}: {findings[0].problem if findings else 'no id of the form owner/slug'}; name the kernel itself"
        )
    return name


def check_owner_slug(name: Any, file: str, shortest: int = 5) -> Iterator[Finding]:
    """What is wrong with an id: kernels and data sets share its form and differ in how short a slug may be."""

    def wrong(problem: str, remedy: str) -> Finding:
        return Finding("error", file, "id", problem, remedy)

    if not isinstance(name, str) or name.count("/") < 1 or not all(name.split("/")):
        yield wrong(f"{name!r} is not owner/slug", "write your user name, a slash, and the title in small letters with dashes")
        return
    owner, slug, *version = name.split("/")
    if version:
        yield wrong(f"{name!r} holds a version or more", "write owner/slug alone")
    if owner == "your-name" or "INSERT_" in name:
        yield wrong(f"{name!r} is the example's", "put your own Kaggle user name there")
    if len(slug) < shortest:
        yield wrong(f"the slug {slug!r} has {len(slug)} characters", f"at least {shortest} are needed")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", slug):
        yield wrong(f"the slug {slug!r} is not one", "small letters, digits and dashes")


def as_slug(title: str) -> str:
    """The slug that the client and Kaggle make of a title.

    Raises:
        ConfigError: where python-slugify, which the client brings, is not installed.
    """
    try:
        from slugify import slugify
    except ImportError:
        raise ConfigError("the kaggle client is not installed: pip install kaggle==2.2.4 six") from None
    return str(slugify(title))


def _names(value: dict[str, Any]) -> Iterator[Finding]:
    title = value.get("title")
    if "id_no" in value:
        if not isinstance(value["id_no"], int) or isinstance(value["id_no"], bool):
            yield _error("id_no", f"{value['id_no']!r} is not a whole number", "take it out, id says which kernel is meant")
        elif "id" in value:
            yield _warning("id_no", "is given beside id, and Kaggle goes by it alone", "take one of them out")
    if "id" not in value:
        yield _error("id", "is missing", "write owner/slug; the commands that follow a push need it")
    else:
        yield from check_owner_slug(value["id"], METADATA)
    if not isinstance(title, str) or not title:
        yield _error("title", "is missing", "Kaggle needs one for a new kernel")
        return
    if len(title) < 5:
        yield _error("title", f"{title!r} has {len(title)} characters", "at least 5 are needed")
    if len(title) > 50:
        problem = f"has {len(title)} characters, and over 50 Kaggle answers with nothing but a server error"
        yield _error("title", problem, "shorten it, and id with it")
    if "INSERT_" in title:
        yield _error("title", f"{title!r} is the example's", "choose your own")
    parts = str(value.get("id", "")).split("/")
    user = os.environ.get("KAGGLE_USERNAME")
    if user and len(parts) > 1 and parts[0] not in (user, "your-name"):
        problem = f"is {parts[0]}'s and KAGGLE_USERNAME is {user}; to others Kaggle says that there is no such kernel"
        yield _warning("id", problem, f"write {user}/{parts[1]}, unless you may write to that one")
    if len(parts) > 1 and parts[1].lower() != as_slug(title):
        problem = f"{title!r} becomes {as_slug(title)!r} and not {parts[1]!r}; Kaggle makes a kernel of that name in silence"
        yield _error("title", problem, f"change the title, or id to {parts[0]}/{as_slug(title)}")


def _kind(value: dict[str, Any]) -> Iterator[Finding]:
    if value.get("language") != "python":
        yield _error("language", f"is {value.get('language')!r}", 'write "python"')
    if value.get("kernel_type") not in ("notebook", "script"):
        yield _error("kernel_type", f"is {value.get('kernel_type')!r}", 'write "notebook"')
    elif value["kernel_type"] == "script":
        yield _error(
            "kernel_type", "is a script, whose outputs do not count as a notebook's", 'write "notebook", a submission has to be one'
        )
    keywords = value.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        yield _error("keywords", "is not a list of texts", "write a list, or take it out")


def _switches(value: dict[str, Any]) -> Iterator[Finding]:
    for name in ("is_private", "enable_gpu", "enable_tpu", "enable_internet"):
        if name in value and _switch(value, name, None) is None:
            yield _error(name, f"{value[name]!r} is neither true nor false", "write true or false")
    if "enable_internet" not in value:
        yield _error("enable_internet", "is missing, and it is on unless it is said to be off", "write false")
    elif _switch(value, "enable_internet", False) and value.get("competition_sources"):
        yield _error("enable_internet", "is on, and the competition takes no submission from such a kernel", "write false")
    elif _switch(value, "enable_internet", False):
        yield _warning("enable_internet", "is on: no submission can be made from this kernel", "write false, unless it fetches wheels")
    if _switch(value, "enable_tpu", False):
        yield _error("enable_tpu", "is on, and nothing here runs on a TPU", "write false")
    if not _switch(value, "is_private", True):
        yield _warning("is_private", "is off: everyone can read the notebook", "write true, unless you mean to publish it")


def asked_machine(value: dict[str, Any]) -> Any:
    """machine_shape, empty where none is asked for: Kaggle's own metadata of a kernel without a GPU say "None"."""
    shape = value.get("machine_shape")
    return "" if shape in (None, "None") else shape


def _machine(value: dict[str, Any], accelerator: str | None) -> Iterator[Finding]:
    shape = accelerator or asked_machine(value)
    gpu = _switch(value, "enable_gpu", False)
    if not shape:
        if gpu:
            remedy = f"name one: {', '.join(ACCELERATORS)}"
            yield _warning("machine_shape", "is missing while enable_gpu is on, so that Kaggle chooses the GPU", remedy)
        return
    where = "machine_shape" if accelerator is None else "--accelerator"
    if shape in REFUSED_ACCELERATORS:
        yield _error(where, f"{shape} {REFUSED_ACCELERATORS[shape]}", f"take one of {', '.join(ACCELERATORS)}")
    elif shape not in ACCELERATORS:
        close = difflib.get_close_matches(str(shape).lower(), [name.lower() for name in ACCELERATORS], 1, 0.5)
        guess = [name for name in ACCELERATORS if [name.lower()] == close]
        known = f"did you mean {guess[0]}?" if guess else "known are"
        remedy = f"{known} {'' if guess else ', '.join(ACCELERATORS)}".strip()
        yield _error(where, f"{shape!r} is no accelerator that is known here, and the client does not look", remedy)
    elif not gpu and accelerator is None:
        yield _warning("enable_gpu", f"is off while machine_shape is {shape}", "write true")


def _sources(value: dict[str, Any]) -> Iterator[Finding]:
    forms = {
        "dataset_sources": (r"[^/\s]+/[^/\s]+(/\d+)?", "owner/slug"),
        "competition_sources": (r"[a-z0-9][a-z0-9-]*", "the competition's slug, as in its address"),
        "kernel_sources": (r"[^/\s]+/[^/\s]{5,}(/\d+)?", "owner/slug, the slug of at least 5 characters"),
        "model_sources": (r"[^/\s]+(/[^/\s]+){3}/\d+", "owner/model/framework/variation/version, the version a whole number"),
    }
    for name, (form, said) in forms.items():
        given = value.get(name, [])
        if not isinstance(given, list) or not all(isinstance(source, str) for source in given):
            yield _error(name, "is not a list of texts", f"write a list, each {said}")
            continue
        for source in given:
            if not re.fullmatch(form, source):
                yield _error(name, f"{source!r} is not of its form", f"write {said}")
            elif source.startswith("your-name/"):
                yield _error(name, f"{source!r} is the example's", "put your own Kaggle user name there")
        if len(set(given)) < len(given):
            yield _warning(name, "holds one of them twice", "keep one")
    competitions = value.get("competition_sources")
    if isinstance(competitions, list) and len(set(map(str, competitions))) > 1:
        problem = "names more than one, and a run refuses to choose between two test files"
        yield _warning("competition_sources", problem, "keep the one that is submitted to")
    for name in _NOT_THE_COMPETITION.keys() & set(map(str, competitions if isinstance(competitions, list) else ())):
        yield _error("competition_sources", f"{name} {_NOT_THE_COMPETITION[name]}", "write arc-prize-2026-arc-agi-2")
    if not competitions:
        yield _warning("competition_sources", "is empty: no test file will be there", "name the competition, as in its address")


def _image(value: dict[str, Any]) -> Iterator[Finding]:
    pinning, image = value.get("docker_image_pinning_type"), value.get("docker_image")
    if pinning not in (None, "original", "latest"):
        yield _error("docker_image_pinning_type", f"is {pinning!r}", 'write "original" or "latest"')
    if image and not re.fullmatch(r"gcr\.io/kaggle(-gpu-images|-images|-private-byod)/python@sha256:[0-9a-f]{64}", str(image)):
        remedy = "take what `kaggle kernels pull -m` says of a run that worked"
        yield _warning("docker_image", f"{image!r} does not look like one of Kaggle's images with a digest", remedy)
    if isinstance(image, str) and _switch(value, "enable_gpu", False) and image.startswith("gcr.io/kaggle-images/"):
        problem = "is the image that kernels without a GPU have, and enable_gpu is on: torch may see no GPU"
        yield _warning("docker_image", problem, "take what `kaggle kernels pull -m` says of a run that worked on a GPU")
    if not image and pinning in (None, "latest"):
        problem = "the image is the newest one on the day of a push, and wheels that were made for another may not install"
        yield _warning("docker_image_pinning_type", problem, 'write "original", which keeps the image of the first push')


def _switch(value: dict[str, Any], name: str, default: bool | None) -> bool | None:
    """A switch as the client reads it: true, false, or a text that says so; the default where it is neither."""
    given = value.get(name, default)
    return (
        {"true": True, "false": False}.get(given.lower(), default)
        if isinstance(given, str)
        else given
        if isinstance(given, bool)
        else default
    )


def _error(place: str, problem: str, remedy: str) -> Finding:
    return Finding("error", METADATA, place, problem, remedy)


def _warning(place: str, problem: str, remedy: str) -> Finding:
    return Finding("warning", METADATA, place, problem, remedy)
