"""Laws of a task: each holds where all train pairs agree, and names the answers that break it."""

from __future__ import annotations

import numpy as np
import pytest

from arc_submit.arc.grid import frozen
from arc_submit.arc.task import Pair, Task
from arc_submit.search.laws import LOOSE, STRICT, broken_laws, laws_of


def grid(*rows):
    return frozen(np.array([[int(c) for c in row] for row in rows]))


def task_of(*pairs):
    return Task("made", tuple(Pair(grid(*a), grid(*b)) for a, b in pairs), ())


# Two train pairs that obey the law, a test input, an answer that obeys it and one that breaks it.
CASES = {
    "same size": ([(["00", "01"], ["00", "02"]), (["001"], ["002"])], ["000", "100"], ["000", "200"], ["000"]),
    "the new colours": ([(["001"], ["003"]), (["002"], ["003"])], ["004"], ["003"], ["005"]),
    "number of new colours": ([(["001"], ["003"]), (["002"], ["004"])], ["005"], ["006"], ["005"]),
    "loses no colour": ([(["001"], ["011"]), (["002"], ["022"])], ["0034"], ["0334"], ["0033"]),
    "no colour has more cells": ([(["001"], ["01"]), (["002"], ["02"])], ["0033"], ["003"], ["0333"]),
    "no painted colour has fewer cells": ([(["001"], ["011"]), (["002"], ["022"])], ["00033"], ["00333"], ["00003"]),
    "same colour counts": ([(["001"], ["100"]), (["002"], ["020"])], ["0034"], ["3400"], ["3300"]),
    "as many painted cells": ([(["001"], ["100"]), (["002"], ["030"])], ["0034"], ["5500"], ["5000"]),
    "more painted cells": ([(["0001"], ["0011"]), (["0002"], ["0222"])], ["0003"], ["0033"], ["0030"]),
    "fewer painted cells": ([(["0011"], ["0010"]), (["0022"], ["0000"])], ["00033"], ["00003"], ["00333"]),
    "keeps the background's cells": ([(["001"], ["002"]), (["0003"], ["0004"])], ["0005"], ["0006"], ["0600"]),
    "keeps the painted cells": ([(["001"], ["021"]), (["0003"], ["4003"])], ["0005"], ["0065"], ["0006"]),
    "erases nothing": ([(["001"], ["022"]), (["0003"], ["0044"])], ["0005"], ["0066"], ["0000"]),
    "part of the input": ([(["012", "034"], ["12"]), (["056"], ["6"])], ["0078"], ["78"], ["87"]),
    "contains the input": ([(["12"], ["1212"]), (["3"], ["33"])], ["45"], ["045"], ["054"]),
    "number of colours": ([(["12"], ["34"]), (["3"], ["56", "65"])], ["45"], ["12"], ["11"]),
    "number of colours more": ([(["12"], ["1"]), (["123"], ["12"])], ["1234"], ["123"], ["12"]),
    "number of lost colours": ([(["12"], ["13"]), (["123"], ["12"])], ["1234"], ["123"], ["1234"]),
    "same background": ([(["001"], ["0012"]), (["112"], ["113"])], ["223"], ["224"], ["444"]),
    "no background": ([(["001"], ["11"]), (["112"], ["22"])], ["223"], ["33"], ["23"]),
    "number of objects": ([(["001"], ["101"]), (["00022"], ["20002"])], ["0003"], ["0303"], ["0333"]),
    "number of objects more": ([(["001"], ["101"]), (["0000202"], ["2000202"])], ["0003"], ["0303"], ["0333"]),
    "number of painted colours": ([(["001"], ["221"]), (["002"], ["332"])], ["0003"], ["1103"], ["1203"]),
    "number of overpainted colours": ([(["001"], ["221"]), (["002"], ["332"])], ["0003"], ["1103"], ["1101"]),
    "number of changed places": ([(["0010"], ["2210"]), (["002"], ["332"])], ["0003"], ["1103"], ["1013"]),
}


def test_every_law_has_a_case():
    assert set(CASES) == set(STRICT) | set(LOOSE)
    assert not set(STRICT) & set(LOOSE)


@pytest.mark.parametrize("name", CASES)
def test_a_law_tells_an_answer_that_obeys_it_from_one_that_breaks_it(name):
    pairs, test, obeys, breaks = CASES[name]
    laws = laws_of(task_of(*pairs))
    place = 0 if name in STRICT else 1
    assert name not in broken_laws(laws, grid(*test), grid(*obeys))[place]
    assert name in broken_laws(laws, grid(*test), grid(*breaks))[place]


@pytest.mark.parametrize("name", CASES)
def test_a_law_that_one_pair_breaks_does_not_hold(name):
    pairs, test, _, breaks = CASES[name]
    laws = laws_of(task_of(*pairs, (test, breaks)))
    assert name not in (laws.strict | laws.loose)
