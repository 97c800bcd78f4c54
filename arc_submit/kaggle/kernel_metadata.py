"""Checks kernel-metadata.json for what the kaggle client or the server refuses, ignores or reads differently than intended.

The client's own rules are those of kaggle 2.2.4 (KaggleApi.kernels_push); tests/test_kaggle_client.py compares them with that client.
Does not know the notebook's content.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.kaggle.findings import Finding, read_json_object, unknown_fields

KERNEL_METADATA = "kernel-metadata.json"
SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
_SWITCHES = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")
_TEXTS = ("id", "title", "code_file", "language", "kernel_type", "machine_shape", "docker_image", "docker_image_pinning_type")
FIELDS = (*_TEXTS, *_SWITCHES, *SOURCES, "id_no", "keywords")

# The number of GPUs of each accelerator; Kaggle's documentation of its client, February and September 2026.
ACCELERATORS = {
    "NvidiaTeslaT4": 2,  # 14.6 GiB each; Kaggle's default GPU
    "NvidiaL4": 4,  # 22.3 GiB each, in ARC Prize competitions
    "NvidiaL4X1": 1,
    **dict.fromkeys(("NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000"), 1),  # where a competition offers them
}
# What people and Kaggle's pages call a machine, in small letters without anything else.
_COMMON_NAMES = {
    **dict.fromkeys(
        ("t4", "t4x2", "2xt4", "gput4x2", "teslat4", "teslat4x2", "nvidiat4", "nvidiat4x2", "nvidiateslat4x2"), "NvidiaTeslaT4"
    ),
    **dict.fromkeys(("l4", "l4x4", "4xl4", "gpul4x4", "nvidial4x4", "teslal4"), "NvidiaL4"),
    **dict.fromkeys(("p100", "gpup100", "gpu", "teslap100", "nvidiap100"), "NvidiaTeslaP100"),
    **dict.fromkeys(("a100", "gpua100", "nvidiaa100"), "NvidiaTeslaA100"),
    **dict.fromkeys(("h100", "gpuh100", "nvidiateslah100"), "NvidiaH100"),
    **dict.fromkeys(("rtxpro6000", "rtx6000", "gpurtxpro6000", "rtx6000pro"), "NvidiaRtxPro6000"),
    **dict.fromkeys(("tpu", "tpuv38", "tpuvmv38", "tpuv3", "tpuv5e8", "tpuv5e", "tpuv6e8"), "TpuV38"),
}
_REFUSED_ACCELERATORS = {
    "NvidiaTeslaP100": "is retired, and torch has no code for its sm_60",
    "NvidiaTeslaT4Highmem": "is for Kaggle's administrators; NvidiaTeslaT4 already has two T4",
    **dict.fromkeys(("TpuV38", "Tpu1VmV38", "TpuV5E8", "TpuV6E8"), "is a TPU, and this project does not run on TPUs"),
}
# Slugs that are easily confused with the 2026 track whose tasks are files.
_OTHER_COMPETITIONS = {
    "arc-prize-2026": "is not a competition",
    "arc-prize-2026-arc-agi-3": "is about games and has no task file",
    "arc-prize-2026-paper-track": "is about papers and has no task file",
}
_NAME = r"[A-Za-z0-9][\w-]*"
_EXAMPLE = re.compile(r"your[-_]?(?:user[-_]?)?name|user[-_]?name|<.*>|.*INSERT_.*|owner", re.IGNORECASE)  # what stands for an owner
# Frameworks of Kaggle's models as their addresses write them.
_FRAMEWORKS = (
    *("transformers", "pytorch", "keras", "gguf", "ggml", "jax", "flax", "pax", "maxtext", "onnx", "other", "api", "gemma-cpp", "litert"),
    *("tensorflow1", "tensorflow2", "tflite", "tfjs", "scikit-learn", "tensorrt-llm", "triton", "coral"),
)
_TASK_COMPETITIONS = ("arc-prize-2024", "arc-prize-2025", "arc-prize-2026-arc-agi-2")
# For each list of sources, the pattern of an entry and its description.
_SOURCE_FORMS = {
    "dataset_sources": (rf"{_NAME}/{_NAME}(/\d+)?", "owner/slug"),
    "competition_sources": (r"[a-z0-9][a-z0-9-]*", "the competition's slug, as in its address"),
    "kernel_sources": (rf"{_NAME}/[\w-]{{5,}}(/\d+)?", "owner/slug, with a slug of at least 5 characters"),
    "model_sources": (r"[^/\s]+(/[^/\s]+){3}/0*[1-9]\d*", "owner/model/framework/variation/version, with a whole number as version"),
}
_IMAGE = r"gcr\.io/kaggle(-gpu-images|-images|-private-byod)/python@sha256:[0-9a-f]{64}"

_error = partial(Finding, "error", KERNEL_METADATA)
_warning = partial(Finding, "warning", KERNEL_METADATA)


def check_metadata(folder: Path, accelerator: str | None = None) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a folder's kernel-metadata.json, in which `accelerator` replaces machine_shape; returns it and the findings."""
    metadata, findings = read_json_object(folder / KERNEL_METADATA)
    if findings and not metadata:
        return metadata, findings
    findings += unknown_fields(KERNEL_METADATA, metadata, FIELDS)
    for check in (_check_names, _check_kind, _check_switches, _check_sources, _check_image):
        findings += check(metadata)
    return metadata, [*findings, *_check_machine(metadata, accelerator)]


def read_kernel_id(folder: Path) -> str:
    """owner/slug of the kernel in a folder; ConfigError if its metadata do not name it."""
    metadata, findings = read_json_object(folder / KERNEL_METADATA)
    kernel = metadata.get("id")
    if not isinstance(kernel, str) or kernel.count("/") != 1:
        problem = findings[0].problem if findings else "no id of the form owner/slug"
        raise ConfigError(f"{folder / KERNEL_METADATA}: {problem}; give the kernel's owner/slug")
    return kernel


def read_switch(metadata: dict[str, Any], name: str, default: bool | None) -> bool | None:
    """A switch as the client reads it: a boolean, or "true" or "false"; `default` where it is anything else or missing."""
    value = metadata.get(name, default)
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), default)
    return value if isinstance(value, bool) else default


def requested_machine(metadata: dict[str, Any]) -> str:
    """machine_shape, or "" where none is requested: Kaggle writes "None" for a kernel without a GPU."""
    shape = metadata.get("machine_shape")
    return "" if shape in (None, "None") else shape if isinstance(shape, str) else str(shape)


def check_id(value: Any, file: str, shortest: int = 5) -> Iterator[Finding]:
    """Check the id of a kernel or a data set, whose slug has at least `shortest` characters."""
    error = partial(Finding, "error", file, "id")
    if not isinstance(value, str) or value.count("/") < 1 or not all(value.split("/")):
        yield error(f"{value!r} is not owner/slug", "write your user name, a slash, and the title in small letters with dashes")
        return
    owner, slug, *version = value.split("/")
    if version:
        yield error(f"{value!r} holds a version or more", "write only owner/slug")
    if _EXAMPLE.fullmatch(owner) or "INSERT_" in value:
        yield error(f"{value!r} is the example's", "put your own Kaggle user name there")
    elif not re.fullmatch(_NAME, owner):
        yield error(f"{owner!r} is not a user name", "write it as in your profile's address: letters, digits and dashes")
    if len(slug) < shortest:
        yield error(f"the slug {slug!r} has {len(slug)} characters", f"at least {shortest} are needed")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", slug):
        yield error(f"{slug!r} is not a slug", "use small letters, digits and dashes")


def _slug_of(title: str) -> str:
    try:
        from slugify import slugify  # a dependency of the client
    except ImportError:
        raise ConfigError("the kaggle client is not installed: pip install kaggle==2.2.4 six") from None
    return str(slugify(title))


def _check_names(metadata: dict[str, Any]) -> Iterator[Finding]:
    title = metadata.get("title")
    if "id_no" in metadata:
        if not isinstance(metadata["id_no"], int) or isinstance(metadata["id_no"], bool):
            yield _error("id_no", f"{metadata['id_no']!r} is not a whole number", "remove it; id names the kernel")
        elif "id" in metadata:
            yield _warning("id_no", "is given beside id, and Kaggle uses only id_no", "remove one of them")
    if "id" not in metadata:
        yield _error("id", "is missing", "write owner/slug; the commands after a push need it")
    else:
        yield from check_id(metadata["id"], KERNEL_METADATA)
    if not isinstance(title, str) or not title:
        yield _error("title", "is missing", "Kaggle needs one for a new kernel")
        return
    if len(title) < 5:
        yield _error("title", f"{title!r} has {len(title)} characters", "at least 5 are needed")
    if len(title) > 50:
        problem = f"has {len(title)} characters; for more than 50 Kaggle answers only with a server error"
        yield _error("title", problem, "shorten it, and id with it")
    if "INSERT_" in title:
        yield _error("title", f"{title!r} is the example's", "choose your own")
    parts = str(metadata.get("id", "")).split("/")
    if len(parts) < 2:
        return
    user = os.environ.get("KAGGLE_USERNAME")
    if user and parts[0] not in (user, "your-name"):
        problem = f"belongs to {parts[0]}, and KAGGLE_USERNAME is {user}; Kaggle answers others that the kernel does not exist"
        yield _warning("id", problem, f"write {user}/{parts[1]}, unless you may write to that kernel")
    slug = _slug_of(title)
    if parts[1].lower() != slug:
        problem = f"{title!r} becomes {slug!r} and not {parts[1]!r}; Kaggle silently makes a kernel of that name"
        yield _error("title", problem, f"change the title, or id to {parts[0]}/{slug}")


def _check_kind(metadata: dict[str, Any]) -> Iterator[Finding]:
    if metadata.get("language") != "python":
        yield _error("language", f"is {metadata.get('language')!r}", 'write "python"')
    kind = metadata.get("kernel_type")
    if kind == "script":
        yield _error("kernel_type", "is a script, and a competition takes only a notebook's output", 'write "notebook"')
    elif kind != "notebook":
        yield _error("kernel_type", f"is {kind!r}", 'write "notebook"')
    keywords = metadata.get("keywords", [])
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        yield _error("keywords", "is not a list of texts", "write a list, or remove it")


def _check_switches(metadata: dict[str, Any]) -> Iterator[Finding]:
    for name in _SWITCHES:
        if name in metadata and read_switch(metadata, name, None) is None:
            yield _error(name, f"{metadata[name]!r} is neither true nor false", "write true or false")
    if "enable_internet" not in metadata:
        yield _error("enable_internet", "is missing, and the internet is on by default", "write false")
    elif read_switch(metadata, "enable_internet", False):
        if metadata.get("competition_sources"):
            yield _error("enable_internet", "is on, and the competition takes no submission from such a kernel", "write false")
        else:
            yield _warning("enable_internet", "is on: this kernel can make no submission", "write false, unless it downloads wheels")
    if read_switch(metadata, "enable_tpu", False):
        yield _error("enable_tpu", "is on, and this project does not run on a TPU", "write false")
    if not read_switch(metadata, "is_private", True):
        yield _warning("is_private", "is off: everyone can read the notebook", "write true, unless you intend to publish it")


def _check_machine(metadata: dict[str, Any], accelerator: str | None) -> Iterator[Finding]:
    shape = accelerator or requested_machine(metadata)
    gpu = read_switch(metadata, "enable_gpu", False)
    if not shape:
        if gpu:
            problem = "is missing while enable_gpu is on, so Kaggle gives a P100, for which torch has no code"
            yield _error("machine_shape", problem, f"name one: {', '.join(ACCELERATORS)}")
        return
    place = "machine_shape" if accelerator is None else "--accelerator"
    if shape in _REFUSED_ACCELERATORS:
        yield _error(place, f"{shape} {_REFUSED_ACCELERATORS[shape]}", f"use one of {', '.join(ACCELERATORS)}")
    elif shape not in ACCELERATORS:
        plain = re.sub(r"[^a-z0-9]", "", shape.lower())
        by_lower_case = {**{name.lower(): name for name in ACCELERATORS}, **_COMMON_NAMES}
        close = [plain] if plain in by_lower_case else difflib.get_close_matches(plain, by_lower_case, 1, 0.5)
        meant = by_lower_case[close[0]] if close else ""
        remedy = f"did you mean {meant}?" if meant else f"use one of {', '.join(ACCELERATORS)}"
        if meant in _REFUSED_ACCELERATORS:
            remedy = f"use one of {', '.join(ACCELERATORS)}; {meant} {_REFUSED_ACCELERATORS[meant]}"
        yield _error(place, f"{shape!r} is not a known accelerator, and the client does not check it", remedy)
    elif not gpu and accelerator is None:
        yield _warning("enable_gpu", f"is off while machine_shape is {shape}", "write true")


def _check_sources(metadata: dict[str, Any]) -> Iterator[Finding]:
    for name, (form, description) in _SOURCE_FORMS.items():
        sources = metadata.get(name, [])
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            yield _error(name, "is not a list of texts", f"write a list, each entry {description}")
            continue
        for source in sources:
            if not re.fullmatch(form, source):
                yield _error(name, f"{source!r} has the wrong form", f"write {description}")
            elif "/" in source and _EXAMPLE.fullmatch(source.partition("/")[0]):
                yield _error(name, f"{source!r} is the example's", "put your own Kaggle user name there")
        plain = [re.sub(r"/\d+$", "", source) if name != "competition_sources" else source for source in sources]
        if len(set(plain)) < len(plain):
            yield _warning(name, "names one of them twice", "keep one")
    models = metadata.get("model_sources")
    for source in models if isinstance(models, list) else ():
        framework = str(source).split("/")[2:3]
        if framework and str(source).count("/") == 4 and framework[0].lower() not in _FRAMEWORKS:
            close = difflib.get_close_matches(framework[0].lower(), _FRAMEWORKS, 1)
            remedy = f"did you mean {close[0]}?" if close else "compare it with the model's page"
            yield _warning("model_sources", f"{source!r}: there is no framework {framework[0]!r}", remedy)
    value = metadata.get("competition_sources")
    competitions = set(map(str, value)) if isinstance(value, list) else set()
    if len(competitions) > 1:
        problem = "names more than one, and a run refuses to choose between two test files"
        yield _warning("competition_sources", problem, "keep the one that you submit to")
    for name in competitions - {*_TASK_COMPETITIONS, *_OTHER_COMPETITIONS} if len(competitions) == 1 else ():
        if re.fullmatch(_SOURCE_FORMS["competition_sources"][0], name) and not re.fullmatch(r"arc-prize-20(2[7-9]|[3-9]\d)[\w-]*", name):
            close = difflib.get_close_matches(name, _TASK_COMPETITIONS, 1, 0.8)
            problem = f"{name} is no competition whose tasks this project reads"
            remedy = f"did you mean {close[0]}?" if close else f"write {_TASK_COMPETITIONS[-1]}"
            yield Finding("error" if close else "warning", KERNEL_METADATA, "competition_sources", problem, remedy)
    for name in _OTHER_COMPETITIONS.keys() & competitions:
        yield _error("competition_sources", f"{name} {_OTHER_COMPETITIONS[name]}", "write arc-prize-2026-arc-agi-2")


def _check_image(metadata: dict[str, Any]) -> Iterator[Finding]:
    pinning, image = metadata.get("docker_image_pinning_type"), metadata.get("docker_image")
    remedy = "copy it from `kaggle kernels pull -m` of a run that worked"
    if pinning not in (None, "original", "latest"):
        yield _error("docker_image_pinning_type", f"is {pinning!r}", 'write "original" or "latest"')
    if image is not None and not isinstance(image, str):
        yield _error("docker_image", f"{image!r} is not a text", remedy)
    elif image and not re.fullmatch(_IMAGE, image):
        yield _warning("docker_image", f"{image!r} does not look like one of Kaggle's images with a digest", remedy)
    if isinstance(image, str) and read_switch(metadata, "enable_gpu", False) and image.startswith("gcr.io/kaggle-images/"):
        problem = "is the image for kernels without a GPU, and enable_gpu is on: torch may see no GPU"
        yield _warning("docker_image", problem, f"{remedy} on a GPU")
    if not image and pinning in (None, "latest"):
        problem = "a push takes the newest image of that day, in which wheels for another image may not install"
        yield _warning("docker_image_pinning_type", problem, 'write "original", which keeps the image of the first push')
