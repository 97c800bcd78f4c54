"""A folder that is to become a Kaggle data set: what the client would leave out, upload unasked, rename or refuse.

The client's own rules are those of kaggle 2.2.4 (dataset_create_new, upload_files). Of what the files hold it asks one thing alone, whether
there are credentials in them: see arc_submit.kaggle.secret_scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arc_submit.kaggle.dataset_folder import METADATA
from arc_submit.kaggle.findings import Finding, read_object, unknown_fields
from arc_submit.kaggle.metadata import check_owner_slug
from arc_submit.kaggle.secret_scan import credentials_in

FIELDS = (
    "id",
    "id_no",
    "title",
    "subtitle",
    "description",
    "licenses",
    "resources",
    "keywords",
    "expectedUpdateFrequency",
    "userSpecifiedSources",
    "image",
)
# Files that the client passes over at the top of a folder.
UNSENT = (METADATA, "datapackage.json", "kernel-metadata.json", "model-metadata.json", "model-instance-metadata.json")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".bz2", ".7z")


def check_dataset(folder: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check a data set's folder; returns its metadata and the findings."""
    value, findings = read_object(folder / METADATA)
    if findings and not value:
        return value, findings
    findings += unknown_fields(METADATA, value, FIELDS)
    return value, [*findings, *_metadata(value, folder), *_files(folder)]


def sent_files(folder: Path) -> list[str]:
    """Names at the top of a folder that the client uploads, each folder as one archive."""
    return sorted(
        path.name for path in folder.iterdir() if path.name not in UNSENT and not re.fullmatch(r"dataset-cover-image\.\w+", path.name)
    )


def _metadata(value: dict[str, Any], folder: Path) -> Iterator[Finding]:
    def wrong(place: str, problem: str, remedy: str) -> Finding:
        return Finding("error", METADATA, place, problem, remedy)

    yield from check_owner_slug(value.get("id"), METADATA, 6)
    slug = str(value.get("id", "")).partition("/")[2]
    if len(slug) > 50:
        yield wrong("id", f"the slug {slug!r} has {len(slug)} characters", "at most 50 are allowed")
    title = value.get("title")
    if not isinstance(title, str) or not 6 <= len(title) <= 50 or "INSERT_" in title:
        yield wrong("title", f"{title!r} is none", "write one of 6 to 50 characters")
    subtitle = value.get("subtitle")
    if subtitle and not 20 <= len(str(subtitle)) <= 80:
        yield wrong("subtitle", f"has {len(str(subtitle))} characters", "write 20 to 80, or take it out")
    licences = value.get("licenses")
    if not isinstance(licences, list) or len(licences) != 1 or not isinstance(licences[0], dict) or not licences[0].get("name"):
        yield wrong("licenses", "is not a list of one", 'write [{"name": "apache-2.0"}], or what the files are under')
    for resource in value.get("resources") or ():
        path = resource.get("path") if isinstance(resource, dict) else None
        if not isinstance(path, str) or not (folder / path).is_file():
            yield wrong("resources", f"{path!r} is no file of the folder", "correct its path, or take it out")


def _files(folder: Path) -> Iterator[Finding]:
    name = folder.name
    names = sent_files(folder)
    if not names:
        yield Finding("error", name, "files", "there is nothing to upload", f"put files beside {METADATA}")
    for path in sorted(folder.rglob("*")):
        place = str(path.relative_to(folder))
        if place in UNSENT:
            continue
        if path.name.startswith("."):
            yield Finding("error", name, place, "is hidden, and is uploaded all the same", "delete it")
            continue
        for line in credentials_in(path):
            problem, _, remedy = line.partition("; ")
            yield Finding("error", name, place, problem, remedy)
        if (path.is_symlink() and not path.exists()) or not (path.is_file() or path.is_dir()):
            remedy = "delete it, or put the file there"
            yield Finding("error", name, place, "is neither file nor folder, and is left out in silence", remedy)
        if "+" in path.name:
            remedy = "rename it; arc-submit kaggle wheels does so for wheels"
            yield Finding("error", name, place, "has a + in its name, which Kaggle strips", remedy)
        elif not re.fullmatch(r"[A-Za-z0-9._ ()=@,-]+", path.name):
            yield Finding(
                "warning", name, place, "has characters in its name that Kaggle may change", "keep to letters, digits, dots and dashes"
            )
        if path.is_file() and path.stat().st_size == 0:
            yield Finding("warning", name, place, "is empty, and may not arrive", "delete it, or write something into it")
        if path.parent == folder and path.name.endswith(_ARCHIVES):
            yield Finding(
                "warning", name, place, "is an archive, which Kaggle unpacks on arrival", "look for the files in it by their names"
            )
