"""Views: undo inverts apply, a key rebuilds its view, chosen views differ, and a longer list extends a shorter one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import grids, random_task, views

from arc_submit.arc.grid import Grid, make_grid, same_grid
from arc_submit.arc.views import IDENTITY_COLOURS, View, choose_views, identity_view, parse_view, random_view
from arc_submit.errors import ArcSubmitError, DataError


@given(grids(), views())
@settings(max_examples=200)
def test_undo_inverts_apply(grid: Grid, view: View) -> None:
    assert same_grid(view.undo(view.apply(grid)), grid)
    assert same_grid(view.apply(view.undo(grid)), grid)
    assert not view.apply(grid).flags.writeable


@given(views(max_pairs=25))
@settings(max_examples=200)
def test_a_key_rebuilds_its_view(view: View) -> None:
    assert parse_view(view.key) == view


def test_the_eight_geometries_on_an_example() -> None:
    grid = make_grid([[1, 2], [3, 4]])
    shown = {(turns, flip): View(turns, flip, IDENTITY_COLOURS, (0,)).apply(grid).tolist() for turns in range(4) for flip in (False, True)}
    assert shown == {
        (0, False): [[1, 2], [3, 4]],
        (1, False): [[2, 4], [1, 3]],
        (2, False): [[4, 3], [2, 1]],
        (3, False): [[3, 1], [4, 2]],
        (0, True): [[2, 1], [4, 3]],
        (1, True): [[4, 2], [3, 1]],
        (2, True): [[3, 4], [1, 2]],
        (3, True): [[1, 3], [2, 4]],
    }


def test_the_example_of_the_docstring() -> None:
    view = parse_view("r90.f.c3120456789.p201")
    assert (view.quarter_turns, view.flip, view.order) == (1, True, (2, 0, 1))
    assert view.apply(make_grid([[0, 3]])).tolist() == [[0], [3]]
    assert identity_view(3).key == "r0.c0123456789.p012"


def test_ten_pairs_are_written_as_digits_and_eleven_with_dashes() -> None:
    assert identity_view(10).key.endswith(".p0123456789")
    assert identity_view(11).key.endswith(".p0-1-2-3-4-5-6-7-8-9-10")
    assert parse_view(identity_view(11).key) == identity_view(11)
    assert parse_view(identity_view(200).key) == identity_view(200)


def test_apply_task_orders_the_train_pairs() -> None:
    task = random_task(np.random.default_rng(0), pairs=3, tests=2)
    view = View(1, True, tuple(reversed(range(10))), (2, 0, 1))
    shown = view.apply_task(task)
    assert shown.id == task.id
    for place, source in enumerate(view.order):
        assert same_grid(shown.train[place].input, view.apply(task.train[source].input))
        assert same_grid(shown.train[place].output, view.apply(task.train[source].output))
    assert all(same_grid(view.undo(a), b) for a, b in zip(shown.tests, task.tests, strict=True))
    with pytest.raises(DataError, match="orders 4 train pairs, task t has 3"):
        identity_view(4).apply_task(task)


@pytest.mark.parametrize("keep_background", [False, True])
@pytest.mark.parametrize("pairs", [1, 3, 12])
def test_chosen_views_differ_and_a_longer_list_extends_a_shorter_one(pairs: int, keep_background: bool) -> None:
    many = choose_views(pairs, 200, seed=7, keep_background=keep_background)
    assert many[0] == identity_view(pairs)
    assert len({view.key for view in many}) == len(many) == 200
    for count in (1, 2, 7, 8, 9, 33):
        assert choose_views(pairs, count, seed=7, keep_background=keep_background) == many[:count]
    assert choose_views(pairs, 200, seed=8, keep_background=keep_background) != many
    if keep_background:
        assert all(view.colours[0] == 0 for view in many)
    else:
        assert any(view.colours[0] != 0 for view in many)
    for start in (0, 8, 96):
        assert len({(view.quarter_turns, view.flip) for view in many[start : start + 8]}) == 8


def test_random_views_preserve_the_background_only_with_the_option() -> None:
    rng = np.random.default_rng(0)
    assert all(random_view(rng, 4, keep_background=True).colours[0] == 0 for _ in range(100))
    drawn = [random_view(rng, 4) for _ in range(400)]
    assert {view.colours[0] for view in drawn} == set(range(10))
    assert len({(view.quarter_turns, view.flip) for view in drawn}) == 8
    assert len({view.order for view in drawn}) == 24


@pytest.mark.parametrize(
    "key",
    [
        "",
        "r0",
        "r45.c0123456789.p0",
        "r0.c012345678.p0",
        "r0.c0123456788.p0",
        "r0.c0123456789.p",
        "r0.c0123456789.p02",
        "r0.c0123456789.p00",
        "r0.c0123456789.p0-1",
        "r0.c0123456789.p1-2-3-4-5-6-7-8-9-10-11",
        "r0.c0123456789.p00-1-2-3-4-5-6-7-8-9-10",
        "r0.c0123456789.p0\n",
        " r0.c0123456789.p0",
        "r0.f.f.c0123456789.p0",
        "R0.c0123456789.p0",
        "r0.c" + "".join(chr(0x660 + i) for i in range(10)) + ".p0",
        "r0.c0123456789.p" + "1" * 6000,
        "r0.c0123456789.p0-1-2-3-4-5-6-7-8-9-10-" + "1" * 6000,
        "r0.c0123456789.p" + "-".join(["1"] * 5000),
    ],
)
def test_malformed_keys_are_refused(key: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_view(key)
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(), st.from_regex(r"r(0|90|7)(\.f)?\.c[0-9]{9,10}\.p[0-9-]{0,30}")))
@settings(max_examples=300)
def test_any_text_is_a_valid_key_or_refused(key: str) -> None:
    try:
        view = parse_view(key)
    except ArcSubmitError:
        return
    assert view.key == key


@pytest.mark.parametrize(
    "arguments",
    [(4, False, IDENTITY_COLOURS, (0,)), (0, False, (0,) * 10, (0,)), (0, False, IDENTITY_COLOURS, ()), (0, False, IDENTITY_COLOURS, (1,))],
)
def test_a_view_that_cannot_be_undone_is_refused(arguments: tuple[int, bool, tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(DataError):
        View(*arguments)


def test_long_lists_of_views_have_no_repeats() -> None:
    # With one pair and a fixed background there are 9! colourings, so that some of these draws repeat.
    for seed in range(3):
        assert len(set(choose_views(1, 4000, seed, keep_background=True))) == 4000
