"""The parameters of a notebook that makes a run: every option of `make_config`, under its own name, with inputs found by name.

A notebook's cell of parameters sets a few; papermill, or a line added to the cell, sets any other. Does not know what an option means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arc_submit.kaggle.inputs import find_adapters, find_file, find_model, run_folder
from arc_submit.run.definitions import GivenSource, given_sources, split_definitions
from arc_submit.run.presets import keyword_names
from arc_submit.run.source_table import SOURCE_TABLE, uses_model

_DATA = (str, int, float, Path, list, tuple, dict)  # a function or a module of an option's name is no value of it
_FILES = ("model_config", "judge_model_config", "chat_template", "compile_cache", "chances", "measured")
_ADAPTERS = ("adapters", "base_adapter", "judge_adapters")
# Keywords of make_config that make_infer_config does not have: the command sets them.
_NOT_OF_INFER = ("preset", "rerun_budget", "sources", "source", "sources_file")


def run_parameters(namespace: Mapping[str, Any], root: Path, folder: str) -> dict[str, Any]:
    """Keywords for `make_config` from a notebook's variables; a variable that is None, or that is no option, is left out.

    Args:
        namespace: the notebook's `globals()`.
        root: Kaggle's root, /kaggle.
        folder: name of the run directory where `out` is not given.

    Raises:
        DataError: where an input is not found, or more than one is.
    """
    values = {name: namespace[name] for name in sorted(keyword_names()) if isinstance(namespace.get(name), _DATA)}
    values.setdefault("out", run_folder(root, folder))
    named = ("model", "judge_model", *_ADAPTERS, *_FILES)
    values |= {name: str(value) for name, value in values.items() if name in named and isinstance(value, int | float)}
    sources = given_sources(_texts(values.pop("source", ())), find_file(root, values.pop("sources_file", None)))
    if sources:
        values["source"] = [_with_inputs(one, root).text for one in sources]
    if values.get("model") is not None or _asks_the_runs_model(sources, values.get("sources")):
        values["model"] = find_model(root, values.get("model"))
    if values.get("judge_model") is not None:
        values["judge_model"] = find_model(root, values["judge_model"])
    for name in _ADAPTERS:
        values[name] = find_adapters(root, values.get(name))
    for name in _FILES:
        values[name] = find_file(root, values.get(name))
    return values


def infer_names() -> set[str]:
    """The parameters of a notebook that predicts with one model: every option of a run but those that are about more than that."""
    return keyword_names() - set(_NOT_OF_INFER)


def _texts(given: Any) -> list[str]:
    """The definitions of sources that a notebook gives as one text or as a list of texts."""
    return [part for text in ([given] if isinstance(given, str) else given) for part in split_definitions(str(text))]


def _with_inputs(source: GivenSource, root: Path) -> GivenSource:
    """A source with its model and its files found among the inputs."""
    finders: dict[str, Callable[[Path, Any], Path | None]] = {"model": find_model}
    finders |= dict.fromkeys(_ADAPTERS, find_adapters) | dict.fromkeys(_FILES, find_file)
    found = {name: finders[name](root, value) for name, value in source.options.items() if name in finders}
    return replace(source, options={**source.options, **found})


def _asks_the_runs_model(sources: Sequence[GivenSource], listed: Any) -> bool:
    """Whether a source has no model of its own; with several models attached, the run's must then be named.

    Args:
        listed: the notebook's parameter "sources".
    """
    if not sources:
        return True
    listed = listed.split(",") if isinstance(listed, str) else listed or ()
    given = {one.name for one in sources}
    kinds = [name for name in listed if name not in given and name in SOURCE_TABLE]
    kinds += [one.kind for one in sources if "model" not in one.options and one.kind in SOURCE_TABLE]
    return uses_model(kinds)
