"""Prompt versions: each contains its grids, in order, and refuses arguments of another kind of question."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import random_task, solid

from arc_submit.arc.grid import Grid, same_grid
from arc_submit.arc.task import Pair
from arc_submit.errors import ConfigError
from arc_submit.language.prompts import CANDIDATES_OF, PROMPTS, SELECT_ANSWERS, VERIFY_ANSWERS, PromptVersion, is_grid, prompt_version

TASK = random_task(np.random.default_rng(0), pairs=3)
VERSIONS = list(PROMPTS.values())


def _arguments(version: PromptVersion) -> tuple[Grid | None, list[Grid]]:
    test = None if version.kind == "inputs" else TASK.tests[0]
    return test, [solid(2, 2, i) for i in range(CANDIDATES_OF[version.kind])]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_each_grid_occurs_once_and_in_order(version: PromptVersion) -> None:
    test, candidates = _arguments(version)
    turns = version.turns(TASK.train, test, candidates)
    shown = [part for turn in turns for part in turn.parts if is_grid(part)]
    expected: list[Grid] = []
    for pair in TASK.train:
        expected += [pair.input] if version.kind == "inputs" else [pair.input, pair.output]
    expected += [] if test is None else [test]
    expected += candidates
    assert len(shown) == len(expected)
    assert all(a is b for a, b in zip(shown, expected, strict=True))
    assert turns[-1].role == "user"
    assert all(is_grid(part) or (isinstance(part, str) and part) for turn in turns for part in turn.parts)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_it_works_with_one_pair_and_with_none(version: PromptVersion) -> None:
    test, candidates = _arguments(version)
    for pairs in ((), TASK.train[:1]):
        assert version.turns(pairs, test, candidates)[-1].role == "user"


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_arguments_of_another_kind_are_refused(version: PromptVersion) -> None:
    test, candidates = _arguments(version)
    with pytest.raises(ConfigError, match=version.name):
        version.turns(TASK.train, TASK.tests[0] if test is None else None, candidates)
    with pytest.raises(ConfigError, match=version.name):
        version.turns(TASK.train, test, [*candidates, solid(1, 1)])
    if candidates:
        with pytest.raises(ConfigError, match=version.name):
            version.turns(TASK.train, test, candidates[1:])


def test_train_pairs_as_turns_are_question_and_answer() -> None:
    turns = prompt_version("output-from-turns-v0").turns(TASK.train, TASK.tests[0])
    assert [turn.role for turn in turns] == ["user", "assistant"] * 3 + ["user"]
    assert all(len(turn.parts) == 1 for turn in turns)


def test_versions_have_names_and_every_kind_has_one() -> None:
    assert all(prompt_version(name).name == name for name in PROMPTS)
    assert {version.kind for version in VERSIONS} == {"output", "inputs", "select", "verify"}
    with pytest.raises(ConfigError, match="no prompt version 'nothing'; known: output-from-examples-v0"):
        prompt_version("nothing")


def test_the_words_of_a_version_do_not_change() -> None:
    """A model is trained on the words of a version: a change of words is a new version."""
    turns = prompt_version("output-from-examples-v1").turns([Pair(solid(1, 1), solid(1, 1, 1))], solid(1, 1, 2))
    assert [part for part in turns[-1].parts if isinstance(part, str)] == ["Input:\n", "\nOutput:\n", "\n\n", "Input:\n", "\nOutput:"]
    assert (SELECT_ANSWERS, VERIFY_ANSWERS) == (("1", "2"), ("yes", "no"))


def test_is_grid() -> None:
    assert is_grid(solid(1, 1))
    assert not is_grid("012")
    assert not same_grid(solid(1, 1), None)
