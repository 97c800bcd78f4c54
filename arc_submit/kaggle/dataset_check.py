"""Checks a folder before its upload as a data set: files that the client leaves out, uploads unintentionally or renames, and metadata.

The client's own rules are those of kaggle 2.2.4 (dataset_create_new, upload_files). Does not know the files' content, apart from
credentials (arc_submit.kaggle.secret_scan).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from arc_submit.kaggle.dataset_folder import DATASET_METADATA
from arc_submit.kaggle.findings import Finding, read_json_object, unknown_fields
from arc_submit.kaggle.kernel_metadata import KERNEL_METADATA, check_id
from arc_submit.kaggle.secret_scan import find_credentials

_TEXTS = ("id", "title", "subtitle", "description", "expectedUpdateFrequency", "userSpecifiedSources", "image")
_FIELDS = (*_TEXTS, "id_no", "licenses", "resources", "keywords")
# Files that the client skips at the top of a folder.
_NOT_UPLOADED = (DATASET_METADATA, "datapackage.json", KERNEL_METADATA, "model-metadata.json", "model-instance-metadata.json")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".bz2", ".7z")


def check_dataset(folder: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a data set's folder; returns its metadata and the findings."""
    metadata, findings = read_json_object(folder / DATASET_METADATA)
    if findings and not metadata:
        return metadata, findings
    findings += unknown_fields(DATASET_METADATA, metadata, _FIELDS)
    return metadata, [*findings, *_check_metadata(metadata, folder), *_check_files(folder)]


def uploaded_names(folder: Path) -> list[str]:
    """Names at the top of a folder that the client uploads, each folder as one archive."""
    names = {path.name for path in folder.iterdir()} - set(_NOT_UPLOADED)
    return sorted(name for name in names if not re.fullmatch(r"dataset-cover-image\.\w+", name))


def _check_metadata(metadata: dict[str, Any], folder: Path) -> Iterator[Finding]:
    error = partial(Finding, "error", DATASET_METADATA)
    yield from check_id(metadata.get("id"), DATASET_METADATA, 6)
    slug = str(metadata.get("id", "")).partition("/")[2]
    if len(slug) > 50:
        yield error("id", f"the slug {slug!r} has {len(slug)} characters", "at most 50 are allowed")
    title = metadata.get("title")
    if not isinstance(title, str) or not 6 <= len(title) <= 50 or "INSERT_" in title:
        yield error("title", f"{title!r} is not a title", "write one of 6 to 50 characters")
    subtitle = metadata.get("subtitle")
    if subtitle and not 20 <= len(str(subtitle)) <= 80:
        yield error("subtitle", f"has {len(str(subtitle))} characters", "write 20 to 80, or remove it")
    licences = metadata.get("licenses")
    if not isinstance(licences, list) or len(licences) != 1 or not isinstance(licences[0], dict) or not licences[0].get("name"):
        yield error("licenses", "is not a list of one licence", 'write [{"name": "apache-2.0"}], or the licence of the files')
    for resource in metadata.get("resources") or ():
        path = resource.get("path") if isinstance(resource, dict) else None
        if not isinstance(path, str) or not (folder / path).is_file():
            yield error("resources", f"{path!r} is not a file of the folder", "correct its path, or remove it")


def _check_files(folder: Path) -> Iterator[Finding]:
    error, warning = partial(Finding, "error", folder.name), partial(Finding, "warning", folder.name)
    if not uploaded_names(folder):
        yield error("files", "there is nothing to upload", f"put files beside {DATASET_METADATA}")
    for path in sorted(folder.rglob("*")):
        place = str(path.relative_to(folder))
        if place in _NOT_UPLOADED:
            continue
        if path.name.startswith("."):
            yield error(place, "is hidden, but is uploaded too", "delete it")
            continue
        for line in find_credentials(path):
            problem, _, remedy = line.partition("; ")
            yield error(place, problem, remedy)
        if (path.is_symlink() and not path.exists()) or not (path.is_file() or path.is_dir()):
            yield error(place, "is neither a file nor a folder, and is silently left out", "delete it, or put the file there")
        if "+" in path.name:
            yield error(place, "has a + in its name, which Kaggle strips", "rename it; arc-submit kaggle wheels does so for wheels")
        elif not re.fullmatch(r"[A-Za-z0-9._ ()=@,-]+", path.name):
            yield warning(place, "has characters in its name that Kaggle may change", "use only letters, digits, dots and dashes")
        if path.is_file() and path.stat().st_size == 0:
            yield warning(place, "is empty, and may not arrive", "delete it, or write something into it")
        if path.parent == folder and path.name.endswith(_ARCHIVES):
            yield warning(place, "is an archive, which Kaggle unpacks on arrival", "look for the files in it by their names")
