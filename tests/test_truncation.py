"""Truncation: never over the limit, the same for the same seed; a task that fits no prompt is named."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_task, solid

from arc_submit.arc.grid import same_grid
from arc_submit.arc.output_shape import largest_output_shape
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.pocket import make_pocket_tokenizer
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.language.truncation import PromptTooLongError, fit_prompt, fit_sample


@lru_cache(maxsize=1)
def _tokenizer() -> PromptTokenizer:
    return PromptTokenizer(make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0"))


def _length(task: Task, train_indices: tuple[int, ...], test: int = 0) -> int:
    return len(_tokenizer().prompt_ids(_tokenizer().prompt.turns([task.train[i] for i in train_indices], task.tests[test])))


def _smallest_prompt(task: Task, test: int) -> int:
    """Tokens of the prompt with the one train pair that makes it shortest, its answer included."""
    shape, _ = largest_output_shape(task, task.tests[test])
    return min(_length(task, (i,), test) for i in range(len(task.train))) + _tokenizer().answer_length(shape)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(20, 3000))
@settings(max_examples=150, deadline=None)
def test_a_prompt_stays_within_the_limit_and_leaves_out_no_pair_that_fits(seed: int, pairs: int, limit: int) -> None:
    task = random_task(np.random.default_rng(seed), "abc", pairs=pairs, tests=2, max_side=20)
    try:
        fitted = fit_prompt(_tokenizer(), task, 1, limit, np.random.default_rng(seed))
    except PromptTooLongError as error:
        message = str(error)
    else:
        assert len(fitted.ids) + fitted.answer_tokens <= limit
        assert fitted.train_indices == tuple(sorted(set(fitted.train_indices)))
        assert fitted.ids == _tokenizer().prompt_ids(
            _tokenizer().prompt.turns([task.train[i] for i in fitted.train_indices], task.tests[1])
        )
        left = set(range(pairs)) - set(fitted.train_indices)
        assert all(_length(task, tuple(sorted((*fitted.train_indices, i))), 1) + fitted.answer_tokens > limit for i in left)
        assert _smallest_prompt(task, 1) <= limit
        assert fitted.reason
        return
    assert message == f"no prompt smaller than {limit} tokens for task abc"
    assert _smallest_prompt(task, 1) > limit


def test_the_smallest_prompt_is_the_least_limit() -> None:
    for seed in range(20):
        task = random_task(np.random.default_rng(seed), "t", pairs=4)
        smallest = _smallest_prompt(task, 0)
        assert fit_prompt(_tokenizer(), task, 0, smallest, np.random.default_rng(0)).train_indices
        with pytest.raises(PromptTooLongError, match=f"no prompt smaller than {smallest - 1} tokens for task t"):
            fit_prompt(_tokenizer(), task, 0, smallest - 1, np.random.default_rng(0))


@pytest.mark.parametrize("place", range(6))
def test_the_only_pair_that_fits_is_always_found(place: int) -> None:
    train = [Pair(solid(25, 25, i), solid(25, 25, i)) for i in range(6)]
    train[place] = Pair(solid(2, 2), solid(2, 2))
    task = Task("t", tuple(train), (solid(3, 3),))
    for seed in range(20):
        assert fit_prompt(_tokenizer(), task, 0, 100, np.random.default_rng(seed)).train_indices == (place,)
        if place:
            ids, _, shown = fit_sample(_tokenizer(), task, 0, 1500, np.random.default_rng(seed))
            assert shown == (place,)
            assert len(ids) <= 1500


def test_a_seed_determines_the_prompt_and_other_seeds_give_other_pairs() -> None:
    task = random_task(np.random.default_rng(0), "t", pairs=6, max_side=12)
    limit = _length(task, (0, 1, 2, 3, 4, 5)) * 2 // 3
    fitted = [fit_prompt(_tokenizer(), task, 0, limit, np.random.default_rng(seed)) for seed in (*range(20), *range(20))]
    assert [f.ids for f in fitted[:20]] == [f.ids for f in fitted[20:]]
    assert len({f.train_indices for f in fitted}) > 3
    samples = [fit_sample(_tokenizer(), task, 2, limit, np.random.default_rng(seed)) for seed in (*range(20), *range(20))]
    assert samples[:20] == samples[20:]
    assert len({sample[2] for sample in samples}) > 3


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(20, 3000))
@settings(max_examples=150, deadline=None)
def test_a_sample_stays_within_the_limit_and_excludes_its_own_answer(seed: int, pairs: int, limit: int) -> None:
    task = random_task(np.random.default_rng(seed), "abc", pairs=pairs, max_side=20)
    target = seed % pairs
    try:
        ids, start, shown = fit_sample(_tokenizer(), task, target, limit, np.random.default_rng(seed))
    except PromptTooLongError as error:
        message = str(error)
    else:
        assert len(ids) <= limit
        assert target not in shown
        assert shown == tuple(sorted(set(shown)))
        assert same_grid(_tokenizer().decode(ids[start:]), task.train[target].output)
        assert ids[:start] == _tokenizer().prompt_ids(_tokenizer().prompt.turns([task.train[i] for i in shown], task.train[target].input))
        return
    assert message == f"no sample smaller than {limit} tokens for train pair {target} of task abc"


def test_a_task_with_one_train_pair_gives_no_sample_but_a_reason() -> None:
    task = random_task(np.random.default_rng(0), "lonely", pairs=1)
    with pytest.raises(PromptTooLongError, match="task lonely: its only train pair"):
        fit_sample(_tokenizer(), task, 0, 100_000, np.random.default_rng(0))


def test_space_is_reserved_for_the_largest_likely_answer() -> None:
    train = (Pair(solid(3, 3), solid(6, 6)), Pair(solid(2, 4), solid(4, 8)))
    fitted = fit_prompt(_tokenizer(), Task("t", train, (solid(5, 7),)), 0, 1000, np.random.default_rng(0))
    assert fitted.answer_tokens == _tokenizer().answer_length((10, 14)) == 2 + 10 * 15 + 1
    assert fitted.train_indices == (0, 1)
